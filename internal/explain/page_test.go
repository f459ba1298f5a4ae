package explain_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// The clusters are of now: openssl knows no other time.
func TestMain(m *testing.M) {
	testpki.Made = time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	testpki.At = time.Now()
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

// beyondFiles are the findings of what a running cluster holds, which may have
// no rule in the table of files.
var beyondFiles = map[string]check.Severity{
	"sa-token-invalid": check.Error, "sa-token-expired": check.Error, "sa-token-legacy": check.Info, "bootstrap-token-expired": check.Warning,
	"bootstrap-token-unbounded": check.Warning, "bootstrap-token-usage": check.Warning, "csr-pending": check.Warning,
	"bootstrap-token-malformed": check.Error,
}

func TestEachFindingHasAPage(t *testing.T) {
	wanted := maps.Clone(beyondFiles)
	for _, r := range check.Rules() {
		wanted[r.ID] = r.Severity
	}
	for id, severity := range wanted {
		page, err := explain.Find(id)
		if err != nil {
			t.Errorf("internal/explain/findings/%s.md: %v", id, err)
			continue
		}
		if page.Severity != severity {
			t.Errorf("%s: the page says %s, the table %s", id, page.Severity, severity)
		}
	}
	for _, id := range explain.IDs() {
		if _, known := wanted[id]; !known {
			t.Errorf("the page %s is of no finding", id)
		}
	}
}

func TestEachPageIsWhole(t *testing.T) {
	pages, err := explain.Pages()
	if err != nil {
		t.Fatal(err)
	}
	seeAlso := regexp.MustCompile("`kubepki explain ([a-z][a-z-]+)`")
	doc := regexp.MustCompile(`docs/[a-z-]+\.md`)
	for _, p := range pages {
		var titles []string
		for _, s := range p.Sections {
			titles = append(titles, s.Title)
			for _, part := range s.Parts {
				for _, m := range seeAlso.FindAllStringSubmatch(part.Text, -1) {
					if _, err := explain.Find(m[1]); err != nil {
						t.Errorf("%s: %v", p.ID, err)
					}
				}
				for _, file := range doc.FindAllString(part.Text, -1) {
					if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
						t.Errorf("%s: %v", p.ID, err)
					}
				}
			}
		}
		if !slices.Equal(titles, explain.Titles) {
			t.Errorf("%s has the sections %q", p.ID, titles)
		}
	}
}

func TestUnknownFindingsSuggestTheNearest(t *testing.T) {
	for id, want := range map[string]string{
		"cert-expird": "cert-expired", "CERT-EXPIRED": "", "sa-key-missmatch": "sa-key-mismatch", "expired": "bootstrap-token-expired", "zzzzzzzzzzzzzzzz": "",
	} {
		_, err := explain.Find(id)
		var unknown *explain.UnknownFinding
		switch {
		case err == nil && id == "CERT-EXPIRED":
		case !errors.As(err, &unknown):
			t.Errorf("%s: %v", id, err)
		case unknown.Nearest != want:
			t.Errorf("%s: the nearest is %q, want %q", id, unknown.Nearest, want)
		}
	}
}

// broken makes, for a page whose commands show a fault, a cluster that has it on
// cp1.
type broken struct {
	kind testpki.Kind
	do   func(*testpki.Cluster)
}

func usages(u ...x509.ExtKeyUsage) testpki.Change {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

func dated(from, to time.Duration) testpki.Change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

func setting(component, from, to string) func(*testpki.Cluster) {
	return func(c *testpki.Cluster) { c.Edit("cp1", "manifests/"+component+".yaml", from, to) }
}

const day = 24 * time.Hour

var faults = map[string]broken{
	"file-missing": {do: func(c *testpki.Cluster) { c.Remove("cp1", "pki/apiserver.crt") }},
	"file-unreadable": {do: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/etcd/peer.crt")
		_ = os.Mkdir(c.Path("cp1", "pki/etcd/peer.crt"), 0o755) // the command fails otherwise
	}},
	"kubeconfig-broken": {do: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    user: system:kube-scheduler\n", "    user: nobody\n")
	}},
	"bundle-empty":    {do: func(c *testpki.Cluster) { c.Write("cp1", "pki/front-proxy-ca.crt", nil) }},
	"cert-malformed":  {do: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.crt", []byte("junk\n")) }},
	"key-malformed":   {do: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.key", []byte("junk\n")) }},
	"key-mismatch":    {do: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/apiserver.key", issue.ECDSAP256) }},
	"ca-key-mismatch": {do: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/ca.key", issue.ECDSAP256) }},
	"sa-key-mismatch": {do: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/sa.key", issue.ECDSAP256) }},
	"ca-invalid": {do: func(c *testpki.Cluster) {
		c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) { x.IsCA, x.KeyUsage = false, x509.KeyUsageDigitalSignature })
	}},
	"chain-order": {kind: testpki.Intermediate, do: func(c *testpki.Cluster) {
		certs, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
		if err != nil {
			panic(err)
		}
		slices.Reverse(certs)
		c.Write("cp1", "pki/apiserver.crt", trust.EncodeCertificates(certs...))
	}},
	"key-weak":           {do: func(c *testpki.Cluster) { c.WeakKey("cp1", "apiserver", "ca") }},
	"cert-expired":       {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", dated(-2*day, -day)) }},
	"cert-expiring":      {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", dated(-200*day, 5*day)) }},
	"cert-outlives-ca":   {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", dated(-day, 9000*day)) }},
	"cert-not-yet-valid": {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", dated(day, 100*day)) }},
	"bundle-expired":     {do: func(c *testpki.Cluster) { c.Resign("cp1", "etcd/ca", dated(-20*day, -day)) }},
	"endpoint-mismatch":  {do: func(c *testpki.Cluster) { c.Edit("cp1", "scheduler.conf", "10.0.0.11:6443", "10.0.0.99:6443") }},
	"constraint-violated": {do: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
			x.PermittedDNSDomainsCritical, x.PermittedDNSDomains = true, []string{"example.test"}
		})
	}},
	"chain-incomplete": {kind: testpki.Intermediate, do: func(c *testpki.Cluster) {
		certs, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
		if err != nil {
			panic(err)
		}
		c.Write("cp1", "pki/apiserver.crt", trust.EncodeCertificates(certs[0]))
	}},
	"kubelet-serving-self-signed": {kind: testpki.KubeletCA, do: func(c *testpki.Cluster) { c.SelfMade("cp1", "/var/lib/kubelet/pki/kubelet") }},
	"bundle-stale":                {do: func(c *testpki.Cluster) { c.SetConfCA("cp1", "scheduler.conf", c.Read("cp1", "pki/etcd/ca.crt")) }},
	"root-ca-mismatch":            {do: setting("kube-controller-manager", "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/etcd/ca.crt")},
	"authority-recreated":         {do: func(c *testpki.Cluster) { c.Recreate("cp1", "ca") }},
	"authority-unknown":           {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver-etcd-client", "ca", nil) }},
	"usage-missing":               {do: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", usages(x509.ExtKeyUsageClientAuth)) }},
	"usage-excess": {do: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.IsCA = true })
	}},
	"requestheader-name-mismatch": {do: setting("kube-apiserver", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=foo,bar")},
	"requestheader-any-name":      {do: setting("kube-apiserver", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=")},
	"identity-wrong":              {do: func(c *testpki.Cluster) { c.Copy("cp1", "scheduler.conf", "cp1", "controller-manager.conf") }},
	"identity-privileged": {do: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "scheduler.conf", "ca", func(x *x509.Certificate) {
			x.Subject = pkix.Name{CommonName: "system:kube-scheduler", Organization: []string{"system:masters"}}
		})
	}},
	"san-missing": {do: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
			x.IPAddresses = slices.DeleteFunc(slices.Clone(x.IPAddresses), func(a net.IP) bool { return a.String() == "10.96.0.1" })
		})
	}},
	"signer-not-single": {do: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/ca.crt", append(c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/etcd/ca.crt")...))
	}},
	"signer-untrusted":   {do: setting("kube-controller-manager", "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/etcd/ca.crt")},
	"client-auth-off":    {do: setting("etcd", "    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt\n", "")},
	"flag-conflict":      {do: setting("etcd", "    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt\n", "")},
	"authorization-open": {do: setting("kube-apiserver", "--authorization-mode=Node,RBAC", "--authorization-mode=AlwaysAllow")},
	"verify-off": {do: func(c *testpki.Cluster) {
		c.Edit("cp1", "admin.conf", "    server:", "    insecure-skip-tls-verify: true\n    server:")
	}},
	"plain-http":        {do: setting("etcd", "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.11:2379", "--listen-client-urls=https://127.0.0.1:2379,http://10.0.0.11:2379")},
	"static-token-file": {do: setting("kube-apiserver", "    - --authorization-mode", "    - --token-auth-file=/etc/kubernetes/tokens.csv\n    - --authorization-mode")},
	"key-permissions":   {do: func(c *testpki.Cluster) { c.Chmod("cp1", "pki/sa.key", 0o644) }},
	"authority-shared": {do: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/ca.crt", "cp1", "pki/front-proxy-ca.crt")
	}},
	"serial-duplicate": {do: func(c *testpki.Cluster) {
		certs, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
		if err != nil {
			panic(err)
		}
		c.Reissue("cp1", "apiserver-kubelet-client", "ca", func(x *x509.Certificate) { x.SerialNumber = certs[0].SerialNumber })
	}},
	"bootstrap-leftover": {do: func(c *testpki.Cluster) { c.Copy("cp1", "kubelet.conf", "cp1", "bootstrap-kubelet.conf") }},
	"anonymous-on": {do: func(c *testpki.Cluster) {
		c.Write("cp1", "/var/lib/kubelet/config.yaml", []byte("authentication:\n  anonymous:\n    enabled: true\n"))
	}},
	// kubeadm's default is the fault: its healthy twin has the flag.
	"kubelet-unverified": {do: func(*testpki.Cluster) {}},
}

// The commands of each page show the fault where it is, and nothing where it is not.
func TestCommandsOfPagesShowTheFault(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: make deps")
	}
	pages, err := explain.Pages()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		for i, block := range consoles(p) {
			if !offline(block) {
				continue
			}
			t.Run(p.ID, func(t *testing.T) {
				t.Parallel()
				f, known := faults[p.ID]
				want := expected(block)
				if !known && len(want) > 0 {
					t.Fatal("no cluster is broken for it: add one to faults")
				}
				if !known {
					f.do = func(*testpki.Cluster) {} // commands to compare with those of other nodes
				}
				sick, healthy := testpki.New(t, kindOf(f)), testpki.New(t, kindOf(f))
				f.do(sick)
				if p.ID == "kubelet-unverified" {
					setting("kube-apiserver", "    - --authorization-mode", "    - --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt\n    - --authorization-mode")(healthy)
				}
				got, code := shell(t, sick, block)
				for _, line := range want {
					if !line.MatchString(got) {
						t.Errorf("block %d: no line like %q in\n%s", i, line, got)
					}
				}
				if len(want) == 0 {
					if code != 0 && strings.Contains(got, "not found") {
						t.Errorf("block %d: %s", i, got)
					}
					return
				}
				got, _ = shell(t, healthy, block)
				if !slices.ContainsFunc(want, func(l *regexp.Regexp) bool { return !l.MatchString(got) }) {
					t.Errorf("block %d says the same of a healthy cluster:\n%s", i, got)
				}
			})
		}
	}
}

func kindOf(f broken) testpki.Kind {
	if f.kind == "" {
		return testpki.Single
	}
	return f.kind
}

func consoles(p explain.Page) []string {
	var all []string
	for _, s := range p.Sections {
		for _, part := range s.Parts {
			if part.Console {
				all = append(all, part.Text)
			}
		}
	}
	return all
}

// needsCluster are programs that ask a running cluster or machine.
var needsCluster = regexp.MustCompile(`\b(kubectl|kubepki|curl|crictl|ss|s_client|timedatectl|chronyc)\b`)

func offline(block string) bool { return !needsCluster.MatchString(block) }

// expected are the lines that a block shows, … standing for any text.
func expected(block string) []*regexp.Regexp {
	var all []*regexp.Regexp
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "$ ") || line == "…" {
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		all = append(all, regexp.MustCompile("(?mi)^"+strings.Join(parts, ".*")+"$"))
	}
	return all
}

// shell runs the commands of a block on the files of cp1, which stands for /.
func shell(t *testing.T, c *testpki.Cluster, block string) (string, int) {
	t.Helper()
	root := filepath.Join(c.Dir, "cp1")
	absolute := regexp.MustCompile(`/(etc|var)/`)
	var script strings.Builder
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			// What a manifest names stands below the root too.
			command = strings.ReplaceAll(command, "| cut -d= -f2)", `| cut -d= -f2 | sed "s#^/ETC/#`+root+`/ETC/#")`)
			script.WriteString(strings.ReplaceAll(absolute.ReplaceAllString(command, root+"/$1/"), "/ETC/", "/etc/"))
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// A path is the node's, as on the page.
	return strings.ReplaceAll(string(out), root, ""), cmd.ProcessState.ExitCode()
}
