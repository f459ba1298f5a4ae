//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// kindsOfCertificates are specs of Certificates of every kind, by name: what follows the names.
var kindsOfCertificates = map[string]string{
	"ecdsa":      ofECDSA,
	"rsa":        "",
	"pkcs8":      "  privateKey: {algorithm: RSA, size: 3072, encoding: PKCS8}\n",
	"p384":       "  privateKey: {algorithm: ECDSA, size: 384, encoding: PKCS8}\n",
	"ed25519":    "  privateKey: {algorithm: Ed25519}\n",
	"kept":       "  privateKey: {algorithm: ECDSA, rotationPolicy: Never}\n",
	"jks":        ofECDSA + "  keystores: {jks: {create: true, alias: mine, passwordSecretRef: {name: password, key: p}}}\n",
	"pkcs12":     ofECDSA + "  keystores: {pkcs12: {create: true, password: changeit, profile: Modern2023}}\n",
	"formats":    ofECDSA + "  additionalOutputFormats: [{type: CombinedPEM}, {type: DER}]\n",
	"template":   ofECDSA + "  secretTemplate: {labels: {team: shop}, annotations: {example.org/owner: shop}}\n",
	"short":      ofECDSA + "  duration: 48h\n  renewBefore: 12h\n",
	"percentage": ofECDSA + "  duration: 48h\n  renewBeforePercentage: 40\n",
	"history":    ofECDSA + "  revisionHistoryLimit: 3\n",
	"names": ofECDSA + `  commonName: all.example.org
  subject: {organizations: [Shop, "Shop, Ltd"], organizationalUnits: [night], countries: [DE], serialNumber: "7"}
  ipAddresses: [10.0.0.7, "2001:db8::7"]
  uris: ["spiffe://example.org/ns/default/sa/shop"]
  emailAddresses: [shop@example.org]
  otherNames: [{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: shop@example.org}]
  usages: [digital signature, server auth, client auth]
  encodeUsagesInRequest: false
`,
	"literal":     ofECDSA + "  literalSubject: CN=literal,OU=night,O=Shop\n",
	"constrained": ofECDSA + "  isCA: true\n  commonName: constrained\n  nameConstraints: {critical: true, permitted: {dnsDomains: [example.org]}}\n",
	"annotated":   ofECDSA,
}

const ofSelf, ofMiddle, ofOther = "{name: self, kind: ClusterIssuer}", "{name: middle, kind: Issuer, group: cert-manager.io}", "{name: other, kind: Other, group: example.org}"

// everyKind are Certificates of every kind, all with a prefix.
func everyKind(prefix string) (names []string, yaml string) {
	all := []string{}
	add := func(name, issuer, more string) {
		names = append(names, prefix+name)
		all = append(all, strings.Replace(leaf(prefix+name, more), "{name: ca}", issuer, 1))
	}
	for name, more := range kindsOfCertificates {
		add(name, "{name: ca}", more)
	}
	add("self", ofSelf, ofECDSA)
	add("deep", ofMiddle, ofECDSA)
	yaml = strings.Join(all, "")
	annotated := "name: " + prefix + "annotated, namespace: default"
	yaml = strings.Replace(yaml, annotated, annotated+", labels: {team: shop}, annotations: {example.org/note: night}", 1)
	return names, yaml + fmt.Sprintf(`---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[1]sshop, namespace: default, annotations: {cert-manager.io/issuer: ca, cert-manager.io/private-key-algorithm: ECDSA}}
spec:
  tls: [{hosts: [shop.example.org], secretName: %[1]sshop}]
  rules: [{host: shop.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}]
`, prefix)
}

const middleAuthority = `---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: default}
stringData: {p: changeit}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: middle, namespace: default}
spec:
  secretName: middle
  commonName: middle
  isCA: true
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: ca}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: middle, namespace: default}
spec: {ca: {secretName: middle}}
`

// slowOnes wait for an approval that is not given, one with a temporary certificate
// meanwhile; the third is denied.
func (w *workloads) slowOnes(t *testing.T, prefix string) {
	t.Helper()
	other := func(name string) string {
		return strings.Replace(leaf(prefix+name, ofECDSA), "{name: ca}", ofOther, 1)
	}
	w.apply(t, other("waits")+strings.Replace(other("lent"), "namespace: default}", "namespace: default, annotations: {cert-manager.io/issue-temporary-certificate: 'true'}}", 1)+other("denied"))
	for _, name := range []string{"waits", "lent", "denied"} {
		eventually(t, prefix+name+" has a request", func(ctx context.Context) error {
			return w.cm.Get().Namespace("default").Resource("certificaterequests").Name(prefix + name + "-1").Do(ctx).Error()
		})
	}
	w.decide(t, prefix+"denied-1", cmapi.CertificateRequestConditionDenied, nil)
	w.becomes(t, prefix+"denied", "has failed", func(o *cmapi.Certificate) bool { return o.Status.LastFailureTime != nil })
}

// finish has the issuer of the slow ones answer, and wants the keys that waited.
func (w *workloads) finish(t *testing.T, prefix string) {
	t.Helper()
	authority := newLabAuthority(t)
	for _, name := range []string{"waits", "lent"} {
		next := w.certificate(t, prefix+name).Status.NextPrivateKeySecretName
		if next == nil {
			t.Fatalf("no key waits for %s", prefix+name)
		}
		waiting, err := w.client.CoreV1().Secrets("default").Get(t.Context(), *next, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.decide(t, prefix+name+"-1", cmapi.CertificateRequestConditionApproved, func(r *cmapi.CertificateRequest) *workload.Issued { return authority.answer(t, r) })
		_, secret := w.atRevision(t, prefix+name, 1)
		if waited, certified := keyID(t, waiting), keyID(t, secret); waited != certified {
			t.Errorf("%s: the key that waited (%x) is not the one that was certified (%x)", prefix+name, waited, certified)
		}
		if by := chain(t, secret)[0].Issuer.CommonName; by != "elsewhere" {
			t.Errorf("%s: the certificate is of %q", prefix+name, by)
		}
	}
}

// leaves wants that whoever has taken over writes nothing, and returns what there is.
// What is not counted: kubepki's own records of authorities, one for each CA issuer;
// cert-manager's Events on issuers, and its tries to approve what it may not.
func (w *workloads) leaves(t *testing.T, account string, before map[string]string, writes int) map[string]string {
	t.Helper()
	after := w.settled(t)
	for _, c := range changes(before, after) {
		if !(strings.HasPrefix(c, "+secrets/") && strings.HasSuffix(c, ".ca-rollover")) {
			t.Errorf("is changed by who takes over: %s", c)
		}
	}
	for _, what := range w.writesOf(t, account)[writes:] {
		record := strings.HasPrefix(what, "patch secrets/") && strings.HasSuffix(what, ".ca-rollover 201")
		refused := strings.HasPrefix(what, "update certificaterequests/status") && strings.HasSuffix(what, " 403")
		if !record && !refused && !strings.HasPrefix(what, "create events/") {
			t.Errorf("%s writes: %s", account, what)
		}
	}
	return after
}

// issuesOnly renews one, loses the Secret of another and changes the spec of a third,
// and wants that they are issued, and nothing else.
func (w *workloads) issuesOnly(t *testing.T, before map[string]string, renewed, lost, changed string) {
	t.Helper()
	revision := map[string]int{}
	for _, name := range []string{renewed, lost, changed} {
		revision[name] = *w.certificate(t, name).Status.Revision
	}
	o := w.certificate(t, renewed)
	workload.SetCondition(&o.Status, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, "ManuallyTriggered", "Certificate re-issuance manually triggered", time.Now())
	if err := w.cm.Put().Namespace("default").Resource("certificates").Name(renewed).SubResource("status").Body(o).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Secrets("default").Delete(t.Context(), lost+"-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o = w.certificate(t, changed)
	o.Spec.DNSNames = append(o.Spec.DNSNames, "more.example.org")
	if err := w.cm.Put().Namespace("default").Resource("certificates").Name(changed).Body(o).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	for name, n := range revision {
		_, secret := w.atRevision(t, name, n+1)
		chain(t, secret)
	}
	for _, c := range changes(before, w.settled(t)) {
		if !slices.ContainsFunc([]string{renewed, lost, changed}, func(ours string) bool { return strings.Contains(c, "/default/"+ours) }) {
			t.Errorf("is changed too: %s", c)
		}
	}
}

// TestSwitchOver: Certificates of every kind go from the real cert-manager to kubepki and
// back, with cert-manager's webhook in place; then both run beside each other.
func TestSwitchOver(t *testing.T) {
	w := startWorkloads(t)
	w.installCertManager(t)
	var before map[string]string
	t.Run("cert-manager issues", func(t *testing.T) {
		defer w.runCertManager(t)()
		w.apply(t, authorities+middleAuthority)
		before = w.issueAll(t, "theirs-", "root", "middle")
	})
	t.Run("kubepki takes over and writes nothing, and issues what is to be issued", func(t *testing.T) {
		defer w.run(t)()
		before = w.leaves(t, controllerAccount, before, 0)
		w.issuesOnly(t, before, "theirs-ecdsa", "theirs-jks", "theirs-rsa")
		w.finish(t, "theirs-")
		before = w.issueAll(t, "ours-")
	})
	t.Run("cert-manager takes over and writes nothing, and issues what is to be issued", func(t *testing.T) {
		writes := len(w.writesOf(t, certManagerAccount))
		defer w.runCertManager(t)()
		before = w.leaves(t, certManagerAccount, before, writes)
		w.issuesOnly(t, before, "ours-ecdsa", "ours-pkcs12", "ours-formats")
		w.finish(t, "ours-")
		for _, name := range []string{"theirs-denied", "ours-denied"} {
			if o := w.certificate(t, name); *o.Status.FailedIssuanceAttempts != 1 {
				t.Errorf("%s was tried again, though an hour is not over: %s", name, text(o.Status))
			}
		}
	})
	t.Run("each serves namespaces of its own", w.testByNamespace)
	t.Run("kubepki serves all Certificates, cert-manager issuers alone", w.testByWork)
}

// issueAll has Certificates of every kind issued, and others wait, and returns what there
// is when nothing is written any more.
func (w *workloads) issueAll(t *testing.T, prefix string, more ...string) map[string]string {
	t.Helper()
	names, yaml := everyKind(prefix)
	w.apply(t, yaml)
	w.slowOnes(t, prefix)
	for _, name := range append(append(names, prefix+"shop"), more...) {
		w.atRevision(t, name, 1)
	}
	return w.settled(t)
}

// testByNamespace: cert-manager serves one namespace by its --namespace, kubepki all others
// by --skip-namespaces. Each has Issuers of the same name, and in cert-manager's namespace
// there is a Certificate of a ClusterIssuer too, which nobody serves.
func (w *workloads) testByNamespace(t *testing.T) {
	ours, theirs := len(w.writesOf(t, controllerAccount)), len(w.writesOf(t, certManagerAccount))
	defer w.runCertManager(t, "--namespace=team-a")()
	defer w.run(t, "--skip-namespaces=team-a")()
	there := strings.NewReplacer("namespace: default", "namespace: team-a", "kind: ClusterIssuer\nmetadata: {name: self}", "kind: Issuer\nmetadata: {name: self, namespace: team-a}",
		"{name: self, kind: ClusterIssuer}", "{name: self}").Replace(authorities + leaf("beside", ofECDSA))
	there += strings.NewReplacer("namespace: default", "namespace: team-a", "{name: ca}", ofSelf).Replace(leaf("of-cluster", ofECDSA))
	w.apply(t, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team-a}\n"+there+leaf("beside", ofECDSA))
	w.atRevision(t, "beside", 1)
	eventually(t, "cert-manager issues in its namespace", func(ctx context.Context) error {
		o := &cmapi.Certificate{}
		err := w.cm.Get().Namespace("team-a").Resource("certificates").Name("beside").Do(ctx).Into(o)
		if ready := workload.Condition(&o.Status, cmapi.CertificateConditionReady); err == nil && (ready == nil || ready.Status != cmmeta.ConditionTrue) {
			err = fmt.Errorf("its status is %s", text(o.Status))
		}
		return err
	})
	w.settled(t)
	for _, what := range w.writesOf(t, controllerAccount)[ours:] {
		if strings.Contains(what, " team-a/") {
			t.Errorf("kubepki writes in cert-manager's namespace: %s", what)
		}
	}
	for _, what := range w.writesOf(t, certManagerAccount)[theirs:] {
		if !strings.Contains(what, " team-a/") {
			t.Errorf("cert-manager writes elsewhere: %s", what)
		}
	}
}

// testByWork: of cert-manager only those controllers run that verify issuers and answer
// requests to them. Both write the conditions of CA issuers, and neither undoes what the
// other wrote.
func (w *workloads) testByWork(t *testing.T) {
	theirs := len(w.writesOf(t, certManagerAccount))
	defer w.runCertManager(t, "--controllers=issuers,clusterissuers")()
	defer w.run(t)()
	w.apply(t, leaf("shared", ofECDSA)+"---\napiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: second, namespace: default}\nspec: {ca: {secretName: root}}\n"+
		strings.Replace(leaf("second", ofECDSA), "{name: ca}", "{name: second}", 1))
	w.atRevision(t, "shared", 1)
	w.atRevision(t, "second", 1)
	w.settled(t)
	for _, what := range w.writesOf(t, certManagerAccount)[theirs:] {
		if !strings.Contains(what, "issuers/status ") && !strings.HasPrefix(what, "create events/") && !strings.HasPrefix(what, "patch events/") {
			t.Errorf("cert-manager writes what is not its work: %s", what)
		}
	}
}

// keyID is the hash of a Secret's public key: cert-manager has keys wait in another form.
func keyID(t *testing.T, s *corev1.Secret) [32]byte {
	t.Helper()
	key, err := workload.ParseKey(s.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatalf("Secret %s: %v", s.Name, err)
	}
	return workload.KeyID(key.Public())
}
