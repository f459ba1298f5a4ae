//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/lab"
)

const (
	authenticationFile = "/etc/kubernetes/authentication.yaml"
	authorizationFile  = "/etc/kubernetes/authorization.yaml"
)

// findings are those of `kubepki verify` on a root, but for infos: "ID FIELD".
func findings(t *testing.T, root string) []string {
	t.Helper()
	out, _ := try(t, "kubepki", "verify", "--root="+root, "-o", "json")
	var result struct {
		Findings []struct{ ID, Severity, Field, Cause string }
	}
	if err := json.Unmarshal([]byte(out.stdout), &result); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
	var all []string
	for _, f := range result.Findings {
		if f.Severity != "info" {
			all = append(all, f.ID+" "+f.Field)
		}
	}
	return all
}

// apiserverFlags replaces flags in the manifest of kube-apiserver: those that
// begin as in drop go, add comes.
func apiserverFlags(t *testing.T, root, drop string, add ...string) {
	t.Helper()
	file := filepath.Join(root, "etc/kubernetes/manifests/kube-apiserver.yaml")
	text := string(read(t, file))
	if drop != "" {
		text = regexp.MustCompile(`(?m)^ *- `+regexp.QuoteMeta(drop)+`.*\n`).ReplaceAllString(text, "")
	}
	for _, flag := range add {
		text = strings.Replace(text, "    - kube-apiserver\n", "    - kube-apiserver\n    - "+flag+"\n", 1)
	}
	write(t, file, text)
}

// What kubepki reads in kube-apiserver's configuration files is what the real one
// does by them, and what it calls a conflict the real one refuses.
func TestStructuredConfigurationOfTheRealAPIServer(t *testing.T) {
	root := filepath.Join(initCluster(t, 1, "--key-algorithm=ECDSA-P256"), "cp1")
	node := addNode(t, newNetwork(t), "cp1", root, "10.99.0.11/24")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"))
	const group = "apiVersion: apiserver.config.k8s.io/v1\n"
	writeConfig := func(file, text string) { write(t, filepath.Join(root, file), group+text) }
	writeConfig(authenticationFile, "kind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}\n")
	writeConfig(authorizationFile, "kind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n")

	apiserverFlags(t, root, "", "--authorization-config="+authorizationFile)
	refusedStart(t, node, root, "--authorization-config can not be specified when --authorization-mode", "flag-conflict --authorization-mode")
	apiserverFlags(t, root, "--authorization-mode", "--authentication-config="+authenticationFile, "--anonymous-auth=false")
	refusedStart(t, node, root, "--anonymous-auth flag cannot be set when anonymous field is configured", "flag-conflict --anonymous-auth")
	apiserverFlags(t, root, "--anonymous-auth", "--oidc-issuer-url=https://id.example.test", "--oidc-client-id=x")
	refusedStart(t, node, root, "authentication-config file and oidc-* flags are mutually exclusive", "flag-conflict --oidc-client-id")
	apiserverFlags(t, root, "--oidc")
	writeConfig(authenticationFile, "kind: AuthenticationConfiguration\njwt: [{issuer: {url: \"http://id.example.test\", audiences: [x]}, claimMappings: {username: {claim: sub, prefix: \"\"}}}]\n")
	refusedStart(t, node, root, "URL scheme must be https", "flag-conflict jwt[0].issuer.url")
	headed := strings.Replace(string(read(t, filepath.Join(root, "etc/kubernetes/pki/ca.crt"))), "-----\n", "-----\nSubject: x\n\n", 1)
	writeConfig(authenticationFile, "kind: AuthenticationConfiguration\njwt:\n- issuer: {url: \"https://id.example.test\", audiences: [x], certificateAuthority: "+strconv.Quote(headed)+"}\n  claimMappings: {username: {claim: sub, prefix: \"\"}}\n")
	refusedStart(t, node, root, "does not contain any valid", "bundle-empty jwt[0].issuer.certificateAuthority")

	writeConfig(authenticationFile, "kind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}\n")
	if got := findings(t, root); len(got) > 0 {
		t.Errorf("the configuration that it runs with: %q", got)
	}
	plane := &controlPlane{dir: filepath.Dir(root), shape: "separate"}
	process := start(t, node, "kube-apiserver")
	ready(t, process)
	plane.admin = plane.conf(t, "super-admin")
	for path, want := range map[string]int{"/livez": http.StatusOK, "/version": http.StatusUnauthorized} {
		if got := anonymously(t, plane.admin, path); got != want {
			t.Errorf("anonymous GET %s: %d, want %d", path, got, want)
		}
	}
	nobody := forge(t, plane.authority("ca"), "nobody").as(plane.admin)
	if err := listSecrets(t, nobody); !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights lists Secrets: %v", err)
	}
	if err := process.Stop(); err != nil {
		t.Fatal(err)
	}

	// A file may allow everything, to anonymous users too.
	writeConfig(authenticationFile, "kind: AuthenticationConfiguration\nanonymous: {enabled: true}\n")
	writeConfig(authorizationFile, "kind: AuthorizationConfiguration\nauthorizers:\n- {type: AlwaysAllow, name: alwaysallow}\n")
	if got, want := findings(t, root), []string{"anonymous-on anonymous.enabled", "authorization-open authorizers[0].type"}; !sameFindings(got, want) {
		t.Errorf("everything is allowed: %q, want %q", got, want)
	}
	ready(t, start(t, node, "kube-apiserver"))
	if err := listSecrets(t, nobody); err != nil {
		t.Errorf("a user without rights lists Secrets where everything is allowed: %v", err)
	}
	if got := anonymously(t, plane.admin, "/api/v1/secrets"); got != http.StatusOK {
		t.Errorf("anonymous GET of Secrets where everything is allowed: %d", got)
	}
}

func sameFindings(got, want []string) bool {
	got = slices.Clone(got)
	slices.Sort(got)
	return slices.Equal(got, want)
}

// refusedStart starts kube-apiserver, which is to end with a message, and wants the one
// finding of kubepki for the same files.
func refusedStart(t *testing.T, node *lab.Node, root, message, finding string) {
	t.Helper()
	if got := findings(t, root); !slices.Equal(got, []string{finding}) {
		t.Errorf("kubepki: %q, want %q", got, finding)
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	if err := start(t, node, "kube-apiserver").Ended(ctx); err == nil || !strings.Contains(err.Error(), message) {
		t.Errorf("kube-apiserver: %v\nwant: %s", err, message)
	}
}

// anonymously is the status of a GET without any credential.
func anonymously(t *testing.T, config *rest.Config, path string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	response, err := client.Get(config.Host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func listSecrets(t *testing.T, config *rest.Config) error {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	return err
}

// kubeletCases are the configuration of a kubelet in files and flags. Files are
// named below the root.
var kubeletCases = map[string]struct {
	files map[string]string
	flags []string
}{
	"no configuration file: the defaults of the flags": {nil, nil},
	"a configuration file: its own defaults":           {map[string]string{"config.yaml": ""}, []string{"--config=ROOT/config.yaml"}},
	"drop-ins without a configuration file":            {map[string]string{"d/a.conf": "readOnlyPort: 0"}, []string{"--config-dir=ROOT/d"}},
	"drop-ins in order, below folders too, hidden ones too": {map[string]string{
		"config.yaml": "authentication: {anonymous: {enabled: true}}\nreadOnlyPort: 10255\nauthorization: {mode: AlwaysAllow}",
		"d/10.conf":   "authentication: {anonymous: {enabled: false}}", "d/05/z.conf": "authentication: {anonymous: {enabled: true}}",
		"d/90.conf": "authorization: null", "d/.99.conf": "readOnlyPort: 10256", "d/95.yaml": "readOnlyPort: 0",
	}, []string{"--config=ROOT/config.yaml", "--config-dir=ROOT/d"}},
	"null takes a whole section back": {map[string]string{
		"config.yaml": "authentication: {anonymous: {enabled: true}, x509: {clientCAFile: /a.crt}}", "d/a.conf": "authentication: null",
	}, []string{"--config=ROOT/config.yaml", "--config-dir=ROOT/d"}},
	"paths that are relative": {map[string]string{
		"c/config.yaml": "authentication: {x509: {clientCAFile: pki/ca.crt}}\nstaticPodPath: pods", "d/a.conf": "tlsCertFile: x.crt\ntlsPrivateKeyFile: x.key",
	}, []string{"--config=ROOT/c/config.yaml", "--config-dir=ROOT/d"}},
	"flags win": {map[string]string{
		"config.yaml": "authentication: {anonymous: {enabled: true}}\nauthorization: {mode: AlwaysAllow}", "d/a.conf": "readOnlyPort: 10255",
	}, []string{"--config=ROOT/config.yaml", "--config-dir=ROOT/d", "--anonymous-auth=false", "--authorization-mode=Webhook", "--read-only-port=0", "--rotate-server-certificates"}},
	"a folder of drop-ins that is a link": {map[string]string{"real/a.conf": "readOnlyPort: 10255", "config.yaml": ""}, []string{"--config=ROOT/config.yaml", "--config-dir=ROOT/link"}},
}

// What kubepki takes a kubelet's files and flags for is what the real kubelet does.
func TestKubeletConfigurationAsTheRealKubeletTakesIt(t *testing.T) {
	for name, c := range kubeletCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			var flags []string
			for _, f := range c.flags {
				flags = append(flags, strings.Replace(f, "ROOT", root, 1))
			}
			for file, text := range c.files {
				at := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, at, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+text+"\n")
			}
			if err := os.Symlink("real", filepath.Join(root, "link")); err != nil {
				t.Fatal(err)
			}
			want := effective(t, flags)
			got := unitKubelet(t, root, flags)
			for flag, value := range want {
				have, _ := got.Flag(flag)
				if have == "" {
					have = map[string]string{"anonymous-auth": "false", "authorization-mode": "Webhook", "read-only-port": "0", "server-tls-bootstrap": "false"}[flag]
				}
				if strings.HasSuffix(flag, "-file") && value != "" {
					value = filepath.Join("/", value) // what is relative is so to "/", where units run
				}
				if have != value {
					t.Errorf("%s is %q, the kubelet says %q", flag, have, value)
				}
			}
		})
	}
}

// unitKubelet is what kubepki reads of a kubelet whose unit has some flags.
func unitKubelet(t *testing.T, files string, flags []string) trust.Component {
	t.Helper()
	root := t.TempDir()
	unit := filepath.Join(root, "etc/systemd/system/kubelet.service")
	for _, dir := range []string{filepath.Dir(unit), filepath.Join(root, "etc/kubernetes/pki"), filepath.Dir(filepath.Join(root, files))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, unit, "[Service]\nExecStart=/usr/bin/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf "+strings.Join(flags, " ")+"\n")
	if err := os.CopyFS(filepath.Join(root, files), os.DirFS(files)); err != nil {
		t.Fatal(err)
	}
	n, _, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == "kubelet" })
	if i < 0 {
		t.Fatalf("no kubelet among %+v", n.Components)
	}
	return n.Components[i]
}

// effective runs the real kubelet until it says what it takes its configuration
// for, and ends it.
func effective(t *testing.T, flags []string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "kubelet"), append([]string{
		// What makes it end at once after it has said so.
		"--container-runtime-endpoint=unix:///nowhere/kubepki-lab.sock", "--cert-dir=" + t.TempDir(), "--root-dir=" + t.TempDir(),
	}, flags...)...)
	cmd.Dir = "/"
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	<-done
	found := regexp.MustCompile(`(?s)"Effective KubeletConfiguration" config=<?(.*?)\n >|"Effective KubeletConfiguration" config=("(?:[^"\\]|\\.)*")`).FindStringSubmatch(log.String())
	if found == nil {
		t.Fatalf("the kubelet does not say its configuration:\n%.4000s", log.String())
	}
	text := found[1]
	if found[2] != "" {
		var err error
		if text, err = strconv.Unquote(found[2]); err != nil {
			t.Fatal(err)
		}
	}
	var k struct {
		StaticPodPath, TLSCertFile, TLSPrivateKeyFile string
		ServerTLSBootstrap                            bool
		ReadOnlyPort                                  int
		Authentication                                struct {
			X509      struct{ ClientCAFile string }
			Anonymous struct{ Enabled bool }
		}
		Authorization struct{ Mode string }
	}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "\n\t", "\n")), &k); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return map[string]string{
		"pod-manifest-path": k.StaticPodPath, "tls-cert-file": k.TLSCertFile, "tls-private-key-file": k.TLSPrivateKeyFile, "client-ca-file": k.Authentication.X509.ClientCAFile,
		"anonymous-auth": strconv.FormatBool(k.Authentication.Anonymous.Enabled), "authorization-mode": k.Authorization.Mode,
		"read-only-port": strconv.Itoa(k.ReadOnlyPort), "server-tls-bootstrap": strconv.FormatBool(k.ServerTLSBootstrap),
	}
}
