package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// keyID is the id of the public key in sa.pub of a node.
func keyID(c *testpki.Cluster, node string) string {
	block, _ := pem.Decode(c.Read(node, "pki/sa.pub"))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	return check.KeyID(key)
}

// run starts the servers of a cluster as it should be.
func run(t *testing.T, c *testpki.Cluster) *testpki.Running {
	t.Helper()
	r := c.Run()
	r.PublishKeys(keyID(c, "cp1"))
	return r
}

// unproved lists the halves that are not proved live.
func unproved(r *check.Result) []string {
	var out []string
	for i := range r.Links {
		l := &r.Links[i]
		for _, h := range l.Halves {
			if h.State != check.OK || h.Proof != check.ByLive {
				out = append(out, fmt.Sprintf("%d %s → %s, %s: %s (%s)", l.Number, l.Caller, l.Callee, h.Side, h.State, h.Proof))
			}
		}
	}
	return out
}

// TestHealthyClustersAreProvedLive: every half, but for the server half of the
// link to kubelets whose certificates nobody verifies and no file holds.
func TestHealthyClustersAreProvedLive(t *testing.T) {
	for _, kind := range []testpki.Kind{testpki.Single, testpki.Bare, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.ExternalEtcd} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, kind)
			r := c.VerifyLive(check.Options{}, run(t, c))
			if got := weighty(r); len(got) > 0 {
				t.Errorf("want no finding, got:\n%s", describe(got))
			}
			for _, h := range unproved(r) {
				if kind == testpki.KubeletCA || !strings.HasPrefix(h, "11 ") || !strings.HasSuffix(h, "server: unseen (none)") {
					t.Errorf("not proved live: %s", h)
				}
			}
			explained(t, r)
		})
	}
}

// TestWhatCannotBeDialledKeepsItsOfflineProof: the loopback addresses of other
// nodes are named once, and nothing is broken.
func TestWhatCannotBeDialledKeepsItsOfflineProof(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	running := run(t, c)
	running.Name("api.example.test", "")
	r := c.VerifyLive(check.Options{}, running)
	if got := weighty(r); len(got) > 0 {
		t.Errorf("want no finding, got:\n%s", describe(got))
	}
	var infos []string
	for _, f := range r.Findings {
		if f.ID == "not-seen" {
			infos = append(infos, f.Cause)
		}
	}
	slices.Sort(infos)
	loopback := "listens on 127.0.0.1 alone"
	if !slices.ContainsFunc(infos, func(s string) bool {
		return strings.Contains(s, loopback) && strings.Contains(s, "kube-scheduler of cp3") && strings.Contains(s, "kube-controller-manager of cp1")
	}) || !slices.ContainsFunc(infos, func(s string) bool { return strings.Contains(s, "api.example.test") }) {
		t.Errorf("infos: %q", infos)
	}
}

// TestWrongFileComesBeforeTheProcessThatKeepsTheOld: a pair on disk that does
// not belong together is told; that the process still has the old one follows.
func TestWrongFileComesBeforeTheProcessThatKeepsTheOld(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	running := run(t, c)
	c.Reissue("cp1", "apiserver", "ca", without("10.0.0.11"))
	r := c.VerifyLive(check.Options{}, running)
	got := weighty(r)
	if len(got) != 1 || got[0].ID != "san-missing" || !slices.ContainsFunc(got[0].Consequences, func(x check.Consequence) bool { return x.ID == "serving-stale" }) {
		t.Errorf("want san-missing with serving-stale as its consequence, got:\n%s", describe(got))
	}
}

// TestFaultThatIsReadAllTheSameHidesNoProcess: whoever mends the one is to know of
// the other.
func TestFaultThatIsReadAllTheSameHidesNoProcess(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	running := run(t, c)
	c.Reissue("cp1", "apiserver", "ca", nil)
	c.Chmod("cp1", "pki/apiserver.key", 0o644)
	var got []string
	for _, f := range weighty(c.VerifyLive(check.Options{}, running)) {
		got = append(got, f.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"key-permissions", "serving-stale"}) {
		t.Errorf("want two findings, got %q", got)
	}
}

// TestEndpointIsAskedForByItsName, as its clients do: what stands before the
// apiservers may choose by it, and show others a certificate of its own.
func TestEndpointIsAskedForByItsName(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	running := run(t, c)
	apiserver, foreign := running.APIServer("cp1"), running.Etcd("cp1", "server").Config.Certificates
	apiserver.Config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		config := apiserver.Config.Clone()
		config.GetConfigForClient = nil
		if h.ServerName != "api.example.test" {
			config.Certificates = foreign
		}
		return config, nil
	}
	running.Name("api.example.test", "10.0.0.99")
	running.Start("10.0.0.99:6443", apiserver)
	if got := weighty(c.VerifyLive(check.Options{}, running)); len(got) > 0 {
		t.Errorf("want nothing, got:\n%s", describe(got))
	}
}

// TestApiserverWithoutEtcdIsNoSecondFinding, nor is the balancer before it.
func TestApiserverWithoutEtcdIsNoSecondFinding(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	running := run(t, c)
	for _, last := range []string{"11", "12", "13"} {
		for _, port := range []string{"2379", "2380", "6443"} {
			running.Stop("10.0.0." + last + ":" + port)
		}
	}
	r := c.VerifyLive(check.Options{}, running)
	got := weighty(r)
	// Three members, each with what follows; kubelets answer.
	if len(got) != 3 || got[0].ID != "unreachable" || !strings.HasSuffix(got[0].Path, "etcd.yaml") {
		t.Errorf("want one finding per member of etcd, got:\n%s", describe(got))
	}
	explained(t, r)
}

// TestUnavailableExtensionApiserverIsSaid, with the apiserver's own words.
func TestUnavailableExtensionApiserverIsSaid(t *testing.T) {
	for id, message := range map[string]string{
		"refused":     "failing or missing response from https://10.97.1.1:443/: x509: certificate signed by unknown authority",
		"unreachable": "failing or missing response from https://10.97.1.1:443/: dial tcp 10.97.1.1:443: connect: connection refused",
	} {
		c := testpki.New(t, testpki.Single)
		running := run(t, c)
		running.PublishAPIService(false, "FailedDiscoveryCheck", message)
		r := c.VerifyLive(check.Options{}, running)
		got := weighty(r)
		if len(got) != 1 || got[0].ID != id || !strings.Contains(got[0].Cause, message) || !slices.Equal(got[0].Links, []int{13}) {
			t.Errorf("%s: got:\n%s", id, describe(got))
		}
		explained(t, r)
	}
}
