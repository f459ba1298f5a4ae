//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// conformance is a control plane with the controller in cert-manager's place, beside an
// ACME server, and nothing of cert-manager but its CRDs: no webhook.
type conformance struct {
	*workloads
	acme *acmeWorld
	root *x509.Certificate // of the Secrets ca-root, ca-one and ca-two
}

// TestConformance has the cases of cert-manager's end-to-end tests that are listed in
// docs/workloads-conformance.md, and hostile input, on the real API server.
func TestConformance(t *testing.T) {
	c := startConformance(t)
	t.Run("certificates", c.testCertificates)
	t.Run("requests of certificates.k8s.io", c.testKubernetesRequests)
	t.Run("issuers and requests", c.testIssuers)
	t.Run("certificates in depth", c.testDepth)
	t.Run("hostile", c.testHostile)
	t.Run("rights", c.testRights) // with an admission policy, which stays
}

func startConformance(t *testing.T) *conformance {
	t.Helper()
	c := &conformance{workloads: startWorkloads(t)}
	c.acme = startACMEWorld(t)                                 // when the network is there
	manager := start(t, c.nodes[0], "kube-controller-manager") // quotas, namespaces that go, aggregated roles
	for _, files := range []string{
		filepath.Join("..", "deploy", "controller-acme-rbac.yaml"), filepath.Join("..", "deploy", "controller-workloads-users-rbac.yaml"),
		filepath.Join(gatewayCRDs(t), "gateway.networking.k8s.io_httproutes.yaml"),
	} {
		if out, err := kubectl(t, c.controlPlane, "apply", "--server-side", "-f", files); err != nil {
			t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
		}
	}
	c.installGateways(t)
	ready(t, manager)
	c.authority(t)
	c.startController(t)
	return c
}

// startController runs it here, where the ACME server looks for answers.
func (c *conformance) startController(t *testing.T) {
	t.Helper()
	args := []string{
		"controller", "--kubeconfig=" + c.kubeconfig, "--enable=workloads,acme,ingress-shim,gateway-shim", "--csr-issuers", "--leader-elect=false", "--listen=",
		"--acme-http01-address=10.99.0.1:" + c.acme.answering, "--dns01-recursive-nameservers=" + c.acme.names.address, "--dns01-recursive-nameservers-only",
	}
	command := exec.CommandContext(t.Context(), filepath.Join(programs, "kubepki"), args...)
	var log bytes.Buffer
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("controller:\n%s", log.String())
		}
	})
}

// authority makes a root of RSA, and authorities one and two levels below it, in the
// Secrets root, one and two of the namespaces default and kube-system.
func (c *conformance) authority(t *testing.T) {
	t.Helper()
	var above issue.Authority
	var list []*x509.Certificate
	for _, name := range []string{"ca-root", "ca-one", "ca-two"} {
		key, err := issue.GenerateKey(issue.RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		template := issue.Template{Authority: true, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(10, 0, 0)}
		template.Subject.CommonName = name
		var made *x509.Certificate
		if above.Key == nil {
			made, err = issue.SelfSign(template, key)
		} else {
			made, err = issue.Sign(template, key.Public(), above)
		}
		if err != nil {
			t.Fatal(err)
		}
		above, list = issue.Authority{Certificate: made, Key: key}, append([]*x509.Certificate{made}, list...)
		encoded, err := issue.EncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, namespace := range []string{"default", "kube-system"} {
			c.secret(t, namespace, name, map[string][]byte{"tls.crt": trust.EncodeCertificates(list...), "tls.key": encoded})
		}
		if c.root == nil {
			c.root = made
		}
	}
}

func (c *conformance) secret(t *testing.T, namespace, name string, data map[string][]byte) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
	if _, err := c.client.CoreV1().Secrets(namespace).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// create makes an object of cert-manager.io.
func (c *conformance) create(t *testing.T, resource string, o metav1.Object) {
	t.Helper()
	if err := c.createErr(t.Context(), resource, o); err != nil {
		t.Fatalf("%s %s: %v", resource, o.GetName(), err)
	}
}

func (c *conformance) createErr(ctx context.Context, resource string, o metav1.Object) error {
	request := c.cm.Post().Resource(resource)
	if o.GetNamespace() != "" {
		request = request.Namespace(o.GetNamespace())
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var with map[string]any
	if err := json.Unmarshal(data, &with); err != nil {
		return err
	}
	with["apiVersion"], with["kind"] = "cert-manager.io/v1", map[string]string{
		"issuers": "Issuer", "clusterissuers": "ClusterIssuer", "certificates": "Certificate", "certificaterequests": "CertificateRequest",
	}[resource]
	if data, err = json.Marshal(with); err != nil {
		return err
	}
	return request.SetHeader("Content-Type", "application/json").Body(data).Do(ctx).Error()
}

func (c *conformance) issuer(t *testing.T, name string, config cmapi.IssuerConfig) cmmeta.IssuerReference {
	t.Helper()
	c.create(t, "issuers", &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.IssuerSpec{IssuerConfig: config}})
	return cmmeta.IssuerReference{Name: name, Kind: "Issuer", Group: "cert-manager.io"}
}

func (c *conformance) clusterIssuer(t *testing.T, name string, config cmapi.IssuerConfig) cmmeta.IssuerReference {
	t.Helper()
	c.create(t, "clusterissuers", &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.IssuerSpec{IssuerConfig: config}})
	return cmmeta.IssuerReference{Name: name, Kind: "ClusterIssuer", Group: "cert-manager.io"}
}

// issuerBecomes waits for the condition Ready of an Issuer.
func (c *conformance) issuerBecomes(t *testing.T, name string, status cmmeta.ConditionStatus, is func(*cmapi.Issuer) bool) *cmapi.Issuer {
	t.Helper()
	o := &cmapi.Issuer{}
	eventually(t, "Issuer "+name+" is Ready "+string(status), func(ctx context.Context) error {
		*o = cmapi.Issuer{}
		if err := c.cm.Get().Namespace("default").Resource("issuers").Name(name).Do(ctx).Into(o); err != nil {
			return err
		}
		for _, d := range o.Status.Conditions {
			if d.Type == cmapi.IssuerConditionReady && d.Status == status && d.ObservedGeneration == o.Generation && (is == nil || is(o)) {
				return nil
			}
		}
		return fmt.Errorf("its status is %s", text(o.Status))
	})
	return o
}

// change changes a Certificate.
func (c *conformance) change(t *testing.T, namespace, name string, change func(*cmapi.Certificate)) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		o := &cmapi.Certificate{}
		if err := c.cm.Get().Namespace(namespace).Resource("certificates").Name(name).Do(t.Context()).Into(o); err != nil {
			return err
		}
		change(o)
		o.APIVersion, o.Kind = "cert-manager.io/v1", "Certificate"
		return c.cm.Put().Namespace(namespace).Resource("certificates").Name(name).Body(o).Do(t.Context()).Error()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// doneIssuing waits until a Certificate is ready as it stands, and not being issued, as
// upstream's WaitForCertificateReadyAndDoneIssuing.
func (c *conformance) doneIssuing(t *testing.T, name string, revision int) (*cmapi.Certificate, *corev1.Secret) {
	t.Helper()
	o := c.becomes(t, name, fmt.Sprintf("is ready at revision %d and not being issued", revision), func(o *cmapi.Certificate) bool {
		r := workload.Condition(&o.Status, cmapi.CertificateConditionReady)
		_, under := workload.Issuing(&o.Status)
		return r != nil && r.Status == cmmeta.ConditionTrue && r.ObservedGeneration == o.Generation && !under && o.Status.Revision != nil && *o.Status.Revision >= revision
	})
	secret, err := c.client.CoreV1().Secrets(o.Namespace).Get(t.Context(), o.Spec.SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o, secret
}

// fails waits for a Certificate whose issuance has failed with a reason, and whose
// message says why.
func (c *conformance) fails(t *testing.T, name, reason, says string) *cmapi.Certificate {
	t.Helper()
	return c.becomes(t, name, "fails with "+reason+" and "+says, func(o *cmapi.Certificate) bool {
		d, r := workload.Condition(&o.Status, cmapi.CertificateConditionIssuing), workload.Condition(&o.Status, cmapi.CertificateConditionReady)
		return d != nil && d.Status == cmmeta.ConditionFalse && d.Reason == reason && strings.Contains(d.Message, says) && o.Status.LastFailureTime != nil &&
			r != nil && r.Status == cmmeta.ConditionFalse
	})
}

// long tells whether the rows that repeat others with another kind of issuer are wanted.
func long() bool { return os.Getenv("KUBEPKI_LAB_LONG") != "" }

// conformancePage is the page that lists the cases. Its tables are what the tests have:
// the one cannot be changed without the other.
func conformancePage(t *testing.T) []string {
	t.Helper()
	return strings.Split(string(read(t, filepath.Join("..", "docs", "workloads-conformance.md"))), "\n")
}

// checkPage compares the rows of a table of the page, by its heading, with those that
// the tests have.
func checkPage(t *testing.T, heading string, want []string) {
	t.Helper()
	lines := conformancePage(t)
	i := slices.Index(lines, "## "+heading)
	if i < 0 {
		t.Fatalf("docs/workloads-conformance.md has no heading %q; its rows would be\n%s", heading, strings.Join(want, "\n"))
	}
	var got []string
	for _, line := range lines[i+1:] {
		if strings.HasPrefix(line, "## ") {
			break
		}
		if strings.HasPrefix(line, "| ") {
			got = append(got, line)
		}
	}
	got = got[min(1, len(got)):] // without its head
	difference := func(what string, a, b []string) {
		for _, row := range a {
			if !slices.Contains(b, row) {
				t.Errorf("%s: %s\n%s", heading, what, row)
			}
		}
	}
	difference("the tests have a row that the page has not", want, got)
	difference("the page has a row that the tests have not", got, want)
}

// checkFunctions wants every test that the page names, as package.TestName, to be there.
func checkFunctions(t *testing.T, rows []string) {
	t.Helper()
	for _, row := range rows {
		for _, word := range strings.FieldsFunc(row, func(r rune) bool { return strings.ContainsRune(" |`,;()", r) }) {
			dir, name, ok := strings.Cut(word, ".Test")
			if !ok || strings.HasPrefix(word, ".") {
				continue
			}
			files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(dir), "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(f string) bool { return bytes.Contains(read(t, f), []byte("func Test"+name+"(")) }) {
				t.Errorf("the page names a test that is not there: %s\n%s", word, row)
			}
		}
	}
}

// deedOf is a case of one of upstream's suites whose test is a function here.
type deedOf struct {
	suite, name string
	// result is what the page says; "": pass.
	result string
	test   func(*testing.T)
	// elsewhere names the tests that show it where there is none here.
	elsewhere string
}

// runDeeds runs cases and compares them with their table of the page.
func runDeeds(t *testing.T, heading string, deeds []deedOf) {
	t.Helper()
	var rows []string
	for _, d := range deeds {
		shown := d.elsewhere
		if d.test != nil {
			shown = "here"
		}
		result := d.result
		if result == "" {
			result = "pass"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", d.suite, d.name, result, shown))
	}
	checkPage(t, heading, rows)
	checkFunctions(t, rows)
	for _, d := range deeds {
		if d.test != nil {
			t.Run(d.suite+" "+d.name, d.test)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
