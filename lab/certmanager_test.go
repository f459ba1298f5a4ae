//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/lab"
)

// certManagerAccount is that of the real cert-manager, whose program build.sh makes.
const certManagerAccount = "system:serviceaccount:cert-manager:cert-manager"

// certManagerRBAC is what cert-manager's chart gives to its controllers and its webhook,
// with the chart's approveSignerNames: requests to issuers of other groups are approved
// by others.
const certManagerRBAC = `---
apiVersion: v1
kind: Namespace
metadata: {name: cert-manager}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cert-manager, namespace: cert-manager}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cert-manager}
rules:
- apiGroups: [cert-manager.io]
  resources: [certificates, certificaterequests, issuers, clusterissuers, certificates/status, certificaterequests/status, issuers/status, clusterissuers/status,
    certificates/finalizers, certificaterequests/finalizers]
  verbs: ["*"]
- apiGroups: [cert-manager.io]
  resources: [signers]
  resourceNames: ["issuers.cert-manager.io/*", "clusterissuers.cert-manager.io/*"]
  verbs: [approve]
- apiGroups: [acme.cert-manager.io]
  resources: ["*"]
  verbs: ["*"]
- apiGroups: [""]
  resources: [secrets, events, pods, services]
  verbs: ["*"]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, ingresses/finalizers]
  verbs: ["*"]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: ["*"]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cert-manager}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cert-manager}
subjects: [{kind: ServiceAccount, name: cert-manager, namespace: cert-manager}]
`

// otherIssuers are the kind of an issuer that neither controller serves: the webhook lets
// nobody approve for a kind that the API server does not know.
const otherIssuers = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: others.example.org}
spec:
  group: example.org
  names: {kind: Other, plural: others}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`

const certManagerHooks = `---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: cert-manager-webhook}
webhooks:
- name: webhook.cert-manager.io
  rules: [{apiGroups: [cert-manager.io, acme.cert-manager.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: ["*/*"]}]
  admissionReviewVersions: [v1]
  matchPolicy: Equivalent
  failurePolicy: Fail
  sideEffects: None
  clientConfig: {url: "https://127.0.0.1:10260/validate", caBundle: %[1]s}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: cert-manager-webhook}
webhooks:
- name: webhook.cert-manager.io
  rules: [{apiGroups: [cert-manager.io], apiVersions: [v1], operations: [CREATE], resources: [certificaterequests]}]
  admissionReviewVersions: [v1]
  matchPolicy: Equivalent
  failurePolicy: Fail
  sideEffects: None
  clientConfig: {url: "https://127.0.0.1:10260/mutate", caBundle: %[1]s}
`

// installCertManager gives cert-manager its account, and starts its webhook, which stays.
func (w *workloads) installCertManager(t *testing.T) {
	t.Helper()
	w.apply(t, certManagerRBAC+otherIssuers)
	token, err := w.client.CoreV1().ServiceAccounts("cert-manager").CreateToken(t.Context(), "cert-manager", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://10.99.0.11:6443", CertificateAuthority: w.pki("ca.crt")}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*config, w.certManagerConf()); err != nil {
		t.Fatal(err)
	}

	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "cert-manager-webhook"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)}, Authority: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := trust.EncodeCertificates(certificate)
	p, err := w.nodes[0].Run(&lab.Manifest{
		Name: "cert-manager-webhook", Probe: &url.URL{Scheme: "http", Host: "127.0.0.1:10261", Path: "/healthz"},
		Command: []string{
			"cert-manager", "webhook", "--kubeconfig=" + w.certManagerConf(), "--secure-port=10260", "--healthz-port=10261", "--metrics-listen-address=127.0.0.1:10262",
			"--tls-cert-file=" + write(t, filepath.Join(w.dir, "hook.crt"), string(public)), "--tls-private-key-file=" + write(t, filepath.Join(w.dir, "hook.key"), string(encoded)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ready(t, p)
	w.apply(t, fmt.Sprintf(certManagerHooks, base64.StdEncoding.EncodeToString(public)))
}

func (w *workloads) certManagerConf() string { return filepath.Join(w.dir, "cert-manager.conf") }

// runCertManager starts the controllers of cert-manager, and returns what stops them.
func (w *workloads) runCertManager(t *testing.T, more ...string) (stop func()) {
	t.Helper()
	p, err := w.nodes[0].Run(&lab.Manifest{
		Name: "cert-manager", Probe: &url.URL{Scheme: "http", Host: "127.0.0.1:9403", Path: "/livez"},
		Command: append([]string{"cert-manager", "controller", "--kubeconfig=" + w.certManagerConf()}, more...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("cert-manager:\n%s", p.Log())
		}
	})
	ready(t, p)
	return func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// objects are the versions of all that either controller writes, with who owns which
// fields, by kind and name.
func (w *workloads) objects(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range []string{
		"/apis/cert-manager.io/v1/certificates", "/apis/cert-manager.io/v1/certificaterequests", "/apis/cert-manager.io/v1/issuers", "/apis/cert-manager.io/v1/clusterissuers",
		"/apis/networking.k8s.io/v1/ingresses", "/api/v1/secrets",
	} {
		data, err := w.client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			Items []struct{ Metadata metav1.ObjectMeta }
		}
		if err := json.Unmarshal(data, &list); err != nil {
			t.Fatal(err)
		}
		for _, i := range list.Items {
			all[filepath.Base(path)+"/"+i.Metadata.Namespace+"/"+i.Metadata.Name] = i.Metadata.ResourceVersion + " " + text(i.Metadata.ManagedFields)
		}
	}
	return all
}

// settled waits until nothing is written any more, and returns what there is then.
func (w *workloads) settled(t *testing.T) map[string]string {
	t.Helper()
	last, since := w.objects(t), time.Now()
	for end := time.Now().Add(readyWait); time.Since(since) < 3*time.Second; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("something is always being written")
		}
		if now := w.objects(t); len(changes(last, now)) > 0 {
			last, since = now, time.Now()
		}
	}
	return last
}

// changes are the objects that are not as they were.
func changes(before, after map[string]string) []string {
	var all []string
	for name, is := range after {
		switch was, ok := before[name]; {
		case !ok:
			all = append(all, "+"+name)
		case was != is:
			all = append(all, fmt.Sprintf("%s: %s => %s", name, was, is))
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			all = append(all, "-"+name)
		}
	}
	return all
}

// writesOf are what an account has written, by the audit log, but for leases and what is
// told of them.
func (w *workloads) writesOf(t *testing.T, account string) []string {
	t.Helper()
	var all []string
	lines := bufio.NewScanner(bytes.NewReader(read(t, filepath.Join(w.nodes[0].Root, "tmp/audit.log"))))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		reads := e.Verb == "get" || e.Verb == "list" || e.Verb == "watch"
		if e.User.Username != account || reads || e.ObjectRef == nil || e.ObjectRef.Resource == "leases" || e.ObjectRef.Namespace == "kube-system" ||
			strings.HasSuffix(e.ObjectRef.Resource, "accessreviews") {
			continue
		}
		all = append(all, fmt.Sprintf("%s %s/%s %s/%s %d", e.Verb, e.ObjectRef.Resource, e.ObjectRef.Subresource, e.ObjectRef.Namespace, e.ObjectRef.Name, e.ResponseStatus.Code))
	}
	return all
}
