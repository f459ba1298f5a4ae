//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
	"github.com/kubepki/kubepki/lab"
)

// workloads is a control plane with the CRDs of cert-manager's release, and kubepki
// controller in cert-manager's place, as the account of the manifest.
type workloads struct {
	*csrCluster
	cm rest.Interface // the administrator's, to cert-manager.io/v1

	process *lab.Process // the controller that runs
}

func startWorkloads(t *testing.T) *workloads {
	t.Helper()
	c := &csrCluster{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}}
	node := addNode(t, newNetwork(t), "cp1", c.path("cp1", ""), "10.99.0.11/24")
	c.nodes = []*lab.Node{node}
	write(t, filepath.Join(node.Root, "etc/kubernetes/audit.yaml"), auditMetadata)
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	c.startAPIServer(t)
	ready(t, etcd)
	c.admin = c.conf(t, "super-admin")
	c.client = c.controlPlane.client(t)
	files := []string{crdFolder(t)}
	for _, part := range []string{"workloads", "cainjector", "shim"} {
		files = append(files, filepath.Join("..", "deploy", "controller-"+part+"-rbac.yaml"))
	}
	for _, files := range files {
		if out, err := kubectl(t, c.controlPlane, "apply", "--server-side", "-f", files); err != nil {
			t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
		}
	}
	if out, err := kubectl(t, c.controlPlane, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
	c.kubeconfig = c.accountKubeconfig(t)
	return &workloads{csrCluster: c, cm: certManagerClient(t, c.admin)}
}

// crdFolder has the CRDs as cert-manager's module of our go.mod ships them.
func crdFolder(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "deploy", "crds")
}

func certManagerClient(t *testing.T, config *rest.Config) rest.Interface {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := cmapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath, config.QPS = &cmapi.SchemeGroupVersion, "/apis", -1
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// run starts the controller, and returns what stops it.
func (w *workloads) run(t *testing.T, more ...string) (stop func()) {
	t.Helper()
	command := append([]string{"kubepki", "controller", "--kubeconfig=" + w.kubeconfig, "--enable=workloads,cainjector,ingress-shim,gateway-shim", "--leader-elect-namespace=kubepki",
		"--minimum-duration=10m"}, more...) // renewals are waited for
	probe := &url.URL{Scheme: "http", Host: "127.0.0.1:10269", Path: "/readyz"}
	p, err := w.nodes[0].Run(&lab.Manifest{Name: "kubepki-controller", Command: command, Probe: probe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("controller:\n%s", p.Log())
		}
	})
	ready(t, p)
	w.process = p
	return func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func (w *workloads) apply(t *testing.T, yaml string) {
	t.Helper()
	file := write(t, filepath.Join(w.dir, "objects.yaml"), yaml) // t.TempDir may have commas, which kubectl would split at
	if out, err := kubectl(t, w.controlPlane, "apply", "-f", file); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
}

func (w *workloads) certificate(t *testing.T, name string) *cmapi.Certificate {
	t.Helper()
	o := &cmapi.Certificate{}
	if err := w.cm.Get().Namespace("default").Resource("certificates").Name(name).Do(t.Context()).Into(o); err != nil {
		t.Fatal(err)
	}
	return o
}

// becomes waits until a Certificate is as wanted, and returns it.
func (w *workloads) becomes(t *testing.T, name, what string, is func(*cmapi.Certificate) bool) *cmapi.Certificate {
	t.Helper()
	var o *cmapi.Certificate
	eventually(t, name+" "+what, func(context.Context) error {
		if o = w.certificate(t, name); !is(o) {
			return fmt.Errorf("its status is %s", text(o.Status))
		}
		return nil
	})
	return o
}

func text(o any) string {
	data, _ := json.Marshal(o)
	return string(data)
}

// atRevision waits for a ready Certificate with a certificate of a revision.
func (w *workloads) atRevision(t *testing.T, name string, n int) (*cmapi.Certificate, *corev1.Secret) {
	t.Helper()
	o := w.becomes(t, name, fmt.Sprintf("is ready at revision %d", n), func(o *cmapi.Certificate) bool {
		ready := workload.Condition(&o.Status, cmapi.CertificateConditionReady)
		return o.Status.Revision != nil && *o.Status.Revision == n && ready != nil && ready.Status == cmmeta.ConditionTrue
	})
	secret, err := w.client.CoreV1().Secrets("default").Get(t.Context(), o.Spec.SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o, secret
}

// chain are the certificates of a Secret, which must fit its key.
func chain(t *testing.T, s *corev1.Secret) []*x509.Certificate {
	t.Helper()
	list, err := trust.ParseCertificates(s.Data[corev1.TLSCertKey])
	if err != nil || len(list) == 0 {
		t.Fatalf("Secret %s: %v", s.Name, err)
	}
	key, err := workload.ParseKey(s.Data[corev1.TLSPrivateKeyKey])
	if err != nil || !trust.SameKey(key.Public(), list[0].PublicKey) {
		t.Fatalf("Secret %s: the key does not fit: %v", s.Name, err)
	}
	return list
}

// authorities are an authority that signs itself, and the issuers of it.
const authorities = `---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: root, namespace: default}
spec:
  secretName: root
  commonName: root
  isCA: true
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: self, kind: ClusterIssuer}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca, namespace: default}
spec: {ca: {secretName: root}}
`

func leaf(name, more string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %s, namespace: default}
spec:
  secretName: %[1]s-tls
  dnsNames: [%[1]s.example.org]
  issuerRef: {name: ca}
%s`, name, more)
}

const ofECDSA = "  privateKey: {algorithm: ECDSA}\n"

func TestWorkloads(t *testing.T) {
	w := startWorkloads(t)
	stop := w.run(t)
	w.installGateways(t)
	t.Run("an authority that signs itself, its issuer, and a leaf, all applied at once", w.testChain)
	t.Run("a Secret that is lost or spoiled is issued anew", w.testSpoiled)
	t.Run("the key stays or goes as the policy says", w.testRotation)
	t.Run("a certificate is renewed when it is due, and by hand", w.testRenewal)
	t.Run("requests of others are answered, or refused", w.testRequests)
	t.Run("authorities come into caBundles", w.testInjection)
	t.Run("Certificates are made of Ingresses, Gateways and ListenerSets", w.testShims)
	stop()
	t.Run("what waits for an approval, or for another's issuer, is taken up by whichever process is there", w.testSlow)
	t.Run("a controller that starts anew with all of it in order writes nothing", w.testRestart)
	t.Run("Secrets of others are never asked for", w.testForeign)
}

func (w *workloads) testChain(t *testing.T) {
	// "soon" is due when it is made, which is no reason to make it again and again.
	w.apply(t, leaf("web", ofECDSA)+leaf("soon", ofECDSA+"  duration: 15m\n  renewBefore: 14m50s\n")+authorities)
	_, root := w.atRevision(t, "root", 1)
	o, secret := w.atRevision(t, "web", 1)
	list := chain(t, secret)
	if err := list[0].VerifyHostname("web.example.org"); err != nil || len(list) != 1 {
		t.Errorf("%d certificates, %v", len(list), err)
	}
	if !trust.SignedBy(list[0], chain(t, root)[0]) || !bytes.Equal(secret.Data["ca.crt"], root.Data["tls.crt"]) {
		t.Error("the leaf is not of the authority")
	}
	if secret.Type != corev1.SecretTypeTLS || secret.Annotations[cmapi.IssuerNameAnnotationKey] != "ca" || secret.Labels[cmapi.PartOfCertManagerControllerLabelKey] != "true" {
		t.Errorf("the Secret is of type %s, with %v, %v", secret.Type, secret.Labels, secret.Annotations)
	}
	if workload.Condition(&o.Status, cmapi.CertificateConditionIssuing) != nil || o.Status.RenewalTime == nil || o.Status.NextPrivateKeySecretName != nil {
		t.Errorf("the status is %s", text(o.Status))
	}
	r := w.request(t, "web-1")
	if r.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] != "1" || len(r.Status.Certificate) == 0 {
		t.Errorf("the request is %s", text(r))
	}
	eventually(t, "an Event tells of it", func(ctx context.Context) error {
		all, err := w.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=web,reason=Issuing"})
		if err == nil && len(all.Items) == 0 {
			err = fmt.Errorf("there is none")
		}
		return err
	})
}

func (w *workloads) request(t *testing.T, name string) *cmapi.CertificateRequest {
	t.Helper()
	r := &cmapi.CertificateRequest{}
	if err := w.cm.Get().Namespace("default").Resource("certificaterequests").Name(name).Do(t.Context()).Into(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *workloads) testSpoiled(t *testing.T) {
	secrets := w.client.CoreV1().Secrets("default")
	if err := secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, second := w.atRevision(t, "web", 2)
	chain(t, second)
	_, root := w.atRevision(t, "root", 1)
	n := 2
	for what, spoil := range map[string]func(*corev1.Secret){
		"another's key":  func(s *corev1.Secret) { s.Data["tls.key"] = root.Data["tls.key"] },
		"no certificate": func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("nothing") },
		"another's pair": func(s *corev1.Secret) {
			s.Data["tls.key"], s.Data["tls.crt"] = root.Data["tls.key"], root.Data["tls.crt"]
		},
		"another's label": nil,
	} {
		_, s := w.atRevision(t, "web", n)
		if spoil == nil {
			s.Labels[cmapi.PartOfCertManagerControllerLabelKey] = "false"
			if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the label is back", func(ctx context.Context) error {
				s, err := secrets.Get(ctx, "web-tls", metav1.GetOptions{})
				if err == nil && s.Labels[cmapi.PartOfCertManagerControllerLabelKey] != "true" {
					err = fmt.Errorf("it is %v", s.Labels)
				}
				return err
			})
			continue
		}
		spoil(s)
		if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		n++
		t.Log(what)
		_, s = w.atRevision(t, "web", n)
		chain(t, s)
	}
	for i := 1; i < n; i++ { // spec.revisionHistoryLimit is 1
		eventually(t, "old requests are removed", func(ctx context.Context) error {
			err := w.cm.Get().Namespace("default").Resource("certificaterequests").Name(fmt.Sprintf("web-%d", i)).Do(ctx).Error()
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("web-%d is there: %w", i, err)
		})
	}
}

func (w *workloads) testRotation(t *testing.T) {
	const keep, turn = "  privateKey: {algorithm: ECDSA, rotationPolicy: Never}\n", "  privateKey: {algorithm: ECDSA, rotationPolicy: Always}\n"
	more := func(yaml string) string {
		return strings.Replace(yaml, "dnsNames: [", "dnsNames: [more.example.org, ", 1)
	}
	for name, policy := range map[string]string{"keeps": keep, "turns": turn} {
		w.apply(t, leaf(name, policy))
		_, before := w.atRevision(t, name, 1)
		w.apply(t, more(leaf(name, policy)))
		_, after := w.atRevision(t, name, 2)
		if err := chain(t, after)[0].VerifyHostname("more.example.org"); err != nil {
			t.Error(err)
		}
		if same := bytes.Equal(before.Data["tls.key"], after.Data["tls.key"]); same != (policy == keep) {
			t.Errorf("%s: the key is the same: %t", name, same)
		}
	}
	// A key that may not be replaced and does not fit any more is said, and left.
	w.apply(t, leaf("keeps", "  privateKey: {algorithm: RSA, rotationPolicy: Never}\n"))
	w.becomes(t, "keeps", "is not issued", func(o *cmapi.Certificate) bool {
		c := workload.Condition(&o.Status, cmapi.CertificateConditionIssuing)
		return c != nil && c.Reason == "CannotRegenerateKey" && o.Status.LastFailureTime != nil
	})
	w.apply(t, leaf("keeps", keep))
	w.atRevision(t, "keeps", 3) // without a wait, for the spec has changed
}

func (w *workloads) testRenewal(t *testing.T) {
	w.becomes(t, "soon", "is renewed", func(o *cmapi.Certificate) bool { return o.Status.Revision != nil && *o.Status.Revision >= 2 })
	if n := *w.certificate(t, "soon").Status.Revision; n > 3 {
		t.Errorf("it was issued %d times", n)
	}
	w.apply(t, leaf("soon", ofECDSA+"  duration: 1h\n  renewBefore: 30m\n"))
	// As cmctl renew does.
	o, _ := w.atRevision(t, "web", *w.certificate(t, "web").Status.Revision)
	eventually(t, "cmctl renew", func(ctx context.Context) error {
		o = w.certificate(t, "web")
		workload.SetCondition(&o.Status, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, "ManuallyTriggered", "Certificate re-issuance manually triggered", time.Now())
		return w.cm.Put().Namespace("default").Resource("certificates").Name("web").SubResource("status").Body(o).Do(ctx).Error()
	})
	w.atRevision(t, "web", *o.Status.Revision+1)
	w.becomes(t, "web", "is not being issued any more", func(o *cmapi.Certificate) bool {
		_, under := workload.Issuing(&o.Status)
		return !under
	})
}

func (w *workloads) testRequests(t *testing.T) {
	text := w.request(t, fmt.Sprintf("web-%d", *w.certificate(t, "web").Status.Revision)).Spec.Request
	create := func(name string, issuer cmmeta.IssuerReference, more func(*cmapi.CertificateRequest)) {
		r := &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec:       cmapi.CertificateRequestSpec{Request: text, IssuerRef: issuer, Usages: []cmapi.KeyUsage{"digital signature", "key encipherment"}},
		}
		if more != nil {
			more(r)
		}
		if err := w.cm.Post().Namespace("default").Resource("certificaterequests").Body(r).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	becomes := func(name, reason string) *cmapi.CertificateRequest {
		t.Helper()
		var r *cmapi.CertificateRequest
		eventually(t, name+" becomes "+reason, func(context.Context) error {
			r = w.request(t, name)
			if c := workload.RequestCondition(&r.Status, cmapi.CertificateRequestConditionReady); c == nil || c.Reason != reason {
				return fmt.Errorf("its status is %s", r.Status.Conditions)
			}
			return nil
		})
		return r
	}
	create("good", cmmeta.IssuerReference{Name: "ca"}, nil)
	create("absent", cmmeta.IssuerReference{Name: "absent"}, nil)
	create("bad", cmmeta.IssuerReference{Name: "ca"}, func(r *cmapi.CertificateRequest) { r.Spec.Request = []byte("nothing") })
	create("authority", cmmeta.IssuerReference{Name: "ca"}, func(r *cmapi.CertificateRequest) { r.Spec.IsCA = true })
	if good := becomes("good", "Issued"); len(good.Status.Certificate) == 0 {
		t.Error("there is no certificate")
	}
	becomes("bad", "Failed")
	becomes("authority", "Failed") // the request itself asks for a leaf
	if r := becomes("absent", "Pending"); workload.RequestCondition(&r.Status, cmapi.CertificateRequestConditionApproved) == nil {
		t.Error("what is pending is not approved")
	}
	w.apply(t, "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: absent, namespace: default}\nspec: {ca: {secretName: root}}\n")
	becomes("absent", "Issued")
}

// testSlow has somebody else approve, as a policy engine would.
func (w *workloads) testSlow(t *testing.T) {
	stop := w.run(t, "--approve-signers=")
	lent := strings.Replace(leaf("lent", ofECDSA), "namespace: default}", "namespace: default, annotations: {cert-manager.io/issue-temporary-certificate: 'true'}}", 1)
	external := strings.Replace(leaf("external", ofECDSA), "{name: ca}", "{name: other, kind: Other, group: example.org}", 1)
	wrong := strings.Replace(leaf("wrong", ofECDSA), "{name: ca}", "{name: other, kind: Other, group: example.org}", 1)
	w.apply(t, lent+leaf("denied", ofECDSA)+external+wrong)
	waits := func(o *cmapi.Certificate) bool {
		_, under := workload.Issuing(&o.Status)
		return under && o.Status.NextPrivateKeySecretName != nil
	}
	for _, name := range []string{"lent", "denied", "external", "wrong"} {
		w.becomes(t, name, "waits", waits)
	}
	w.decide(t, "lent-1", "", nil) // the issuer has seen it
	eventually(t, "a temporary certificate is there", func(ctx context.Context) error {
		s, err := w.client.CoreV1().Secrets("default").Get(ctx, "lent-tls", metav1.GetOptions{})
		if err == nil {
			err = chain(t, s)[0].VerifyHostname("lent.example.org")
		}
		return err
	})
	next := *w.certificate(t, "lent").Status.NextPrivateKeySecretName
	waiting, err := w.client.CoreV1().Secrets("default").Get(t.Context(), next, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	w.decide(t, "lent-1", cmapi.CertificateRequestConditionApproved, nil)
	w.decide(t, "denied-1", cmapi.CertificateRequestConditionDenied, nil)
	authority := newLabAuthority(t)
	w.decide(t, "external-1", cmapi.CertificateRequestConditionApproved, func(r *cmapi.CertificateRequest) *workload.Issued { return authority.answer(t, r) })
	w.decide(t, "wrong-1", cmapi.CertificateRequestConditionApproved, func(*cmapi.CertificateRequest) *workload.Issued { return authority.answer(t, w.request(t, "lent-1")) })
	stop = w.run(t, "--approve-signers=")
	defer stop()
	_, lentSecret := w.atRevision(t, "lent", 1)
	if !bytes.Equal(lentSecret.Data["tls.key"], waiting.Data["tls.key"]) || chain(t, lentSecret)[0].Issuer.CommonName != "root" {
		t.Error("the key that waited is not the one that was certified")
	}
	_, externalSecret := w.atRevision(t, "external", 1)
	if chain(t, externalSecret)[0].Issuer.CommonName != "elsewhere" || externalSecret.Annotations[cmapi.IssuerGroupAnnotationKey] != "example.org" {
		t.Errorf("the Secret is not of the external issuer: %v", externalSecret.Annotations)
	}
	for name, reason := range map[string]string{"denied": "Tester", "wrong": "InvalidCertificate"} {
		w.becomes(t, name, "has failed", func(o *cmapi.Certificate) bool {
			c := workload.Condition(&o.Status, cmapi.CertificateConditionIssuing)
			return c != nil && c.Status == cmmeta.ConditionFalse && c.Reason == reason && o.Status.LastFailureTime != nil && *o.Status.FailedIssuanceAttempts == 1
		})
	}
	eventually(t, "keys that wait are gone", func(ctx context.Context) error {
		all, err := w.client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{LabelSelector: cmapi.IsNextPrivateKeySecretLabelKey + "=true"})
		if err == nil && len(all.Items) > 0 {
			err = fmt.Errorf("there are %d", len(all.Items))
		}
		return err
	})
}

// decide approves or denies a request, and answers it as an issuer would; "" says that it
// takes time.
func (w *workloads) decide(t *testing.T, name string, what cmapi.CertificateRequestConditionType, answer func(*cmapi.CertificateRequest) *workload.Issued) {
	t.Helper()
	r := w.request(t, name)
	if what == "" {
		workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonPending, "it takes time", time.Now())
	} else {
		workload.SetRequestCondition(&r.Status, what, cmmeta.ConditionTrue, "Tester", "so it was decided", time.Now())
	}
	if answer != nil {
		issued := answer(r)
		r.Status.Certificate, r.Status.CA = issued.Chain, issued.CA
		workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "done", time.Now())
	}
	if err := w.cm.Put().Namespace("default").Resource("certificaterequests").Name(name).SubResource("status").Body(r).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

// labAuthority is an issuer that the controller does not serve.
type labAuthority struct{ *workload.Authority }

func newLabAuthority(t *testing.T) labAuthority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	template := issue.Template{Subject: pkix.Name{CommonName: "elsewhere"}, Authority: true, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour)}
	root, err := issue.SelfSign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return labAuthority{&workload.Authority{Key: key, Chain: []*x509.Certificate{root}}}
}

func (a labAuthority) answer(t *testing.T, r *cmapi.CertificateRequest) *workload.Issued {
	t.Helper()
	asked, err := workload.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := workload.Sign(asked, a.Authority, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func (w *workloads) testRestart(t *testing.T) {
	stop := w.run(t, "--leader-elect=false")
	w.many(t, 200)
	stop()
	before := w.writes(t)
	stop = w.run(t, "--leader-elect=false")
	time.Sleep(3 * time.Second) // nothing tells that nothing comes
	stop()
	if after := w.writes(t); len(after) > len(before) {
		t.Errorf("it wrote: %q", after[len(before):])
	}
}

// many makes Certificates, and waits until all are ready.
func (w *workloads) many(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("many-%03d", i)
		o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.org"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		}}
		if err := w.cm.Post().Namespace("default").Resource("certificates").Body(o).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "many Certificates", func(ctx context.Context) error {
		var all cmapi.CertificateList
		if err := w.cm.Get().Namespace("default").Resource("certificates").Do(ctx).Into(&all); err != nil {
			return err
		}
		ready := 0
		for i := range all.Items {
			d := workload.Condition(&all.Items[i].Status, cmapi.CertificateConditionReady)
			if strings.HasPrefix(all.Items[i].Name, "many-") && d != nil && d.Status == cmmeta.ConditionTrue {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d of %d are ready", ready, n)
		}
		return nil
	})
}

// testForeign looks at what the controllers of this test have asked for, all parts of them.
func (w *workloads) testForeign(t *testing.T) {
	asked := 0
	for _, e := range w.audited(t) {
		if e.ObjectRef == nil || e.ObjectRef.Resource != "secrets" || e.Verb != "list" && e.Verb != "watch" || !strings.HasPrefix(e.UserAgent, "kubepki") {
			continue
		}
		u, err := url.Parse(e.RequestURI)
		if err != nil {
			t.Fatal(err)
		}
		asked++
		label, name := u.Query().Get("labelSelector"), u.Query().Get("fieldSelector")
		if label != cmapi.PartOfCertManagerControllerLabelKey+"=true" && !strings.HasPrefix(name, "metadata.name=") {
			t.Errorf("it asked for Secrets of others: %s %s", e.Verb, e.RequestURI)
		}
	}
	if asked == 0 {
		t.Error("no controller has asked for Secrets, or the audit log does not show it")
	}
}

// writes are what the controller has written, by the audit log, but for its lease.
func (w *workloads) writes(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, e := range w.audited(t) {
		if e.ObjectRef == nil || e.ObjectRef.Resource == "leases" || e.Verb == "get" || e.Verb == "list" || e.Verb == "watch" {
			continue
		}
		all = append(all, e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource+" "+e.ObjectRef.Name)
	}
	return all
}

// audited is the audit log, as far as it has what the controller asked for.
func (w *workloads) audited(t *testing.T) []auditv1.Event {
	t.Helper()
	var all []auditv1.Event
	lines := bufio.NewScanner(bytes.NewReader(read(t, filepath.Join(w.nodes[0].Root, "tmp/audit.log"))))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}
