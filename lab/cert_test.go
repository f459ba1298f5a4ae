//go:build linux

package lab_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/lab"
)

// certCluster is an API server that nobody serves Certificates on.
type certCluster struct {
	*controlPlane
	node       *lab.Node
	kubeconfig string
	api        *kube.Certs
}

func startCertCluster(t *testing.T) *certCluster {
	t.Helper()
	c := &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}
	node := addNode(t, newNetwork(t), "cp1", c.path("cp1", ""), "10.99.0.11/24")
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	ready(t, etcd, start(t, node, "kube-apiserver"))
	api, err := kube.NewCerts(c.conf(t, "super-admin"))
	if err != nil {
		t.Fatal(err)
	}
	return &certCluster{controlPlane: c, node: node, kubeconfig: c.path("cp1", "etc/kubernetes/super-admin.conf"), api: api}
}

func (c *certCluster) kubectl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := kubectl(t, c.controlPlane, args...); err != nil {
		t.Fatalf("kubectl %q: %v\n%s%s", args, err, out.stdout, out.stderr)
	}
}

// cert runs kubepki cert, which is to end with a code, and returns what it wrote.
func (c *certCluster) cert(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := try(t, "kubepki", append([]string{"cert", "--kubeconfig=" + c.kubeconfig}, args...)...)
	if exitCode(err) != code || err != nil && code == 0 {
		t.Fatalf("kubepki cert %q: %v, want exit %d\n%s%s", args, err, code, out.stdout, out.stderr)
	}
	return out.stdout + out.stderr
}

// says has the answer of kubepki cert contain texts.
func (c *certCluster) says(t *testing.T, code int, args []string, texts ...string) {
	t.Helper()
	out := c.cert(t, code, args...)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("kubepki cert %q does not say %q:\n%s", args, text, out)
		}
	}
}

// causedIn explains the Certificate web as it will be, if nothing happens for a while.
func (c *certCluster) causedIn(t *testing.T, wait time.Duration, want string) {
	t.Helper()
	c.namedCausedIn(t, "web", wait, want)
}

func (c *certCluster) namedCausedIn(t *testing.T, name string, wait time.Duration, want string) {
	t.Helper()
	o, err := c.api.Certificate(t.Context(), "default", name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.api.Gather(t.Context(), o, "", time.Now().Add(wait))
	if err != nil {
		t.Fatal(err)
	}
	if a := why.Explain(g); a.Cause == nil || a.Cause.ID != want {
		t.Errorf("the cause is %+v of %s, want %s", a.Cause, a.State, want)
	}
}

// TestCertWithoutController: the commands on a real API server, with the CRDs of
// cert-manager's release and nobody who answers.
func TestCertWithoutController(t *testing.T) {
	c := startCertCluster(t)
	c.says(t, 3, []string{"why", "web"}, "broken crds-missing")
	c.says(t, 1, []string{"status"}, "the CRDs of cert-manager.io are not installed")

	c.kubectl(t, "apply", "--server-side", "-f", crdFolder(t))
	c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

	c.says(t, 1, []string{"why", "web"}, "there is no Certificate web in namespace default")
	c.says(t, 0, []string{"create", "web", "--issuer=shop-ca", "--dns=web.example.com", "--dry-run=server"}, "created (server dry run)")
	c.says(t, 0, []string{"create", "web", "--issuer=shop-ca", "--dns=web.example.com"}, "warning: Issuer/shop-ca is not there", "web created")
	c.says(t, 3, []string{"why", "web"}, "broken issuer-missing", "no other that could be used")
	c.apply(t, issuerNamed("Issuer", "shopca"))
	c.says(t, 3, []string{"why", "secret/web-tls"}, "broken issuer-name", `{"spec":{"issuerRef":{"name":"shopca"}}}`)
	c.apply(t, issuerNamed("ClusterIssuer", "shop-ca"))
	c.says(t, 3, []string{"why", "web"}, "broken issuer-kind")
	c.apply(t, issuerNamed("Issuer", "shop-ca"))
	c.says(t, 3, []string{"why", "web"}, "waiting under-way")
	c.causedIn(t, 5*time.Minute, why.CauseNoController)
	c.kubectl(t, "patch", "issuer", "shop-ca", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`)
	c.causedIn(t, 5*time.Minute, why.CauseNoController)
	c.apply(t, fmt.Sprintf(`{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: kube-system, name: cert-manager-controller},
  spec: {holderIdentity: someone, leaseDurationSeconds: 60, renewTime: %q}}`, time.Now().Add(5*time.Minute).UTC().Format("2006-01-02T15:04:05.000000Z")))
	c.causedIn(t, 5*time.Minute, why.CauseIdle)

	c.says(t, 0, []string{"renew", "web", "--dry-run"}, "(dry run)")
	c.says(t, 0, []string{"status"}, "web   no")
	c.says(t, 0, []string{"renew", "--all"}, "web is to be issued anew")
	c.says(t, 0, []string{"renew", "web"}, "web is being issued already")
	c.says(t, 0, []string{"status", "-A", "-o", "wide"}, "issuing  ManuallyTriggered")
	c.says(t, 1, []string{"renew", "web", "--wait", "--timeout=300ms"}, "not ready within 300ms")
	testCertRequest(t, c)
	testCertSecret(t, c)
}

func issuerNamed(kind, name string) string {
	return fmt.Sprintf("{apiVersion: cert-manager.io/v1, kind: %s, metadata: {name: %s}, spec: {selfSigned: {}}}", kind, name)
}

func (c *certCluster) apply(t *testing.T, yaml string) {
	t.Helper()
	c.kubectl(t, "apply", "-f", write(t, filepath.Join(c.dir, "object.yaml"), yaml))
}

// testCertRequest: a request that nobody approves, by hand and of a Certificate.
func testCertRequest(t *testing.T, c *certCluster) {
	csr := ownRequest(t, c)
	c.says(t, 1, []string{"create", "own", "--issuer=shop-ca", "--request=" + csr, "--certificate-out=" + filepath.Join(c.dir, "own.crt"), "--timeout=300ms"},
		"certificaterequest.cert-manager.io/own: waits for an approval", "no certificate within 300ms")
	c.kubectl(t, "annotate", "certificaterequest", "own", "cert-manager.io/certificate-name=web", "cert-manager.io/certificate-revision=1")
	c.causedIn(t, 5*time.Minute, why.CauseUnapproved)
	c.kubectl(t, "patch", "certificaterequest", "own", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[{"type":"Denied","status":"True","reason":"lab","message":"no"}]}}`)
	c.says(t, 3, []string{"why", "web"}, "broken denied", "the request was denied: no (lab)")
}

// testCertSecret: a Secret that somebody wrote, whose key does not fit.
func testCertSecret(t *testing.T, c *certCluster) {
	pki := c.path("cp1", "etc/kubernetes/pki")
	c.kubectl(t, "create", "secret", "generic", "web-tls", "--from-file=tls.crt="+filepath.Join(pki, "apiserver.crt"), "--from-file=tls.key="+filepath.Join(pki, "front-proxy-client.key"))
	c.kubectl(t, "patch", "certificate", "web", "--subresource=status", "--type=merge", "-p", `{"status":{"revision":1,"conditions":[{"type":"Ready","status":"True","observedGeneration":1}]}}`)
	c.says(t, 3, []string{"why", "web"}, "broken secret-edited", "kubectl-create wrote it")
}

// TestCertWithController: the commands beside kubepki's own controller.
func TestCertWithController(t *testing.T) {
	w := startWorkloads(t)
	api, err := kube.NewCerts(w.admin)
	if err != nil {
		t.Fatal(err)
	}
	c := &certCluster{controlPlane: w.controlPlane, node: w.nodes[0], kubeconfig: w.path("cp1", "etc/kubernetes/super-admin.conf"), api: api}
	testCertServed(t, c, func() (stop func()) { return w.run(t) })
}

// testCertServed has the commands do all that they can where a controller answers; run
// starts it.
func testCertServed(t *testing.T, c *certCluster, run func() (stop func())) {
	stop := run()
	c.apply(t, authorities)
	c.says(t, 0, []string{"create", "web", "--issuer=ca", "--dns=web.example.com", "--wait"}, "default/web: ready, revision 1, ends ")
	c.says(t, 0, []string{"why", "web", "root"}, "ready: default/web waits for nothing", "ready: default/root waits for nothing", "issuer/default/ca", "ca, ready")
	c.says(t, 0, []string{"renew", "web", "--wait"}, "web is to be issued anew", "default/web: ready, revision 2, ends ")
	c.says(t, 0, []string{"status"}, "web   yes", "Issuer/ca", "ClusterIssuer/self")
	testCertSigned(t, c)

	c.apply(t, "{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {name: lost, namespace: default}, spec: {ca: {secretName: nowhere}}}")
	c.says(t, 0, []string{"create", "orphan", "--issuer=lost", "--dns=orphan.example.com"}, "orphan created")
	c.says(t, 3, []string{"why", "orphan"}, "broken ca-secret-missing", "secret/default/nowhere")

	stop()
	pki := c.path("cp1", "etc/kubernetes/pki")
	c.kubectl(t, "patch", "secret", "web-tls", "--type=merge", "-p", fmt.Sprintf(`{"data":{"tls.key":%q}}`, base64.StdEncoding.EncodeToString(read(t, filepath.Join(pki, "front-proxy-client.key")))))
	c.says(t, 3, []string{"why", "web"}, "broken secret-edited", "kubectl-patch wrote it")
	stop = run()
	c.becomesReady(t, "web")
	stop()
}

// becomesReady waits until cert why has nothing to say.
func (c *certCluster) becomesReady(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is as it shall be", func(context.Context) error {
		out, err := try(t, "kubepki", "cert", "why", name, "--kubeconfig="+c.kubeconfig)
		if err != nil {
			return errors.New(out.stdout)
		}
		return nil
	})
}

// testCertSigned: a request of one's own, whose key stays here.
func testCertSigned(t *testing.T, c *certCluster) {
	csr, crt := ownRequest(t, c), filepath.Join(c.dir, "own.crt")
	c.says(t, 0, []string{"create", "own", "--issuer=ca", "--request=" + csr, "--usages=client auth", "--certificate-out=" + crt}, crt)
	out, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", crt, "-noout", "-ext", "extendedKeyUsage").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "TLS Web Client Authentication") {
		t.Errorf("%v\n%s", err, out)
	}
}

// ownRequest makes a key and a request with openssl.
func ownRequest(t *testing.T, c *certCluster) string {
	t.Helper()
	csr, key := filepath.Join(c.dir, "own.csr"), filepath.Join(c.dir, "own.key")
	openssl := exec.CommandContext(t.Context(), "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", key, "-out", csr, "-subj", "/CN=web.example.com")
	if out, err := openssl.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return csr
}
