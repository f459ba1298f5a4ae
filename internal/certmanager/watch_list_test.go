package certmanager

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/workload"
)

func readNames(text string) (names, version string, err error) {
	var all []string
	version, err = readList(strings.NewReader(text), func() apiruntime.Object { return &cmapi.Certificate{} }, func(o apiruntime.Object) error {
		all = append(all, o.(*cmapi.Certificate).Name)
		return nil
	})
	return strings.Join(all, " "), version, err
}

func TestAListIsReadObjectByObject(t *testing.T) {
	const item = `{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":"%s","managedFields":[{"manager":"m","fieldsV1":{"f:a":{}}}]},"spec":{"secretName":"s"}}`
	a, b := fmt.Sprintf(item, "a"), fmt.Sprintf(item, "b")
	for name, row := range map[string]struct{ text, names, version string }{
		"as the API server writes it":                {`{"apiVersion":"cert-manager.io/v1","items":[` + a + `,` + b + `],"kind":"CertificateList","metadata":{"continue":"","resourceVersion":"7"}}` + "\n", "a b", "7"},
		"with its version first, and fields unknown": {`{"metadata":{"resourceVersion":"7"},"more":{"items":[1]},"items":[` + b + `]}`, "b", "7"},
		"without an object":                          {`{"items":[],"metadata":{"resourceVersion":"7"}}`, "", "7"},
		"with null where the objects should be":      {`{"items":null,"metadata":{"resourceVersion":"7"}}`, "", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			if names, version, err := readNames(row.text); names != row.names || version != row.version || err != nil {
				t.Errorf("names %q, version %q, %v; want %q and %q", names, version, err, row.names, row.version)
			}
		})
	}
	for name, text := range map[string]string{
		"broken off between two objects": `{"items":[` + a + `,`,
		"broken off within one":          `{"items":[` + a[:40],
		"broken off before its version":  `{"items":[` + a + `],"metadata":`,
		"broken off before its end":      `{"items":[],"metadata":{"resourceVersion":"7"}`,
		"no list":                        `["a"]`,
		"nothing":                        ``,
		"an object of another form":      `{"items":[7]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if names, version, err := readNames(text); err == nil {
				t.Errorf("it was taken for a list of %q, version %q", names, version)
			}
		})
	}
}

// TestAListThatBreaksOffComesInPages has a server that ends whole lists in the midst, as
// the API server does after a minute.
func TestAListThatBreaksOffComesInPages(t *testing.T) {
	const there = 600
	for name, row := range map[string]struct {
		breaks bool
		pages  int
	}{
		"a whole list is asked for once":       {false, 0},
		"one that breaks off is read in pages": {true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			pages := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				var from, limit int
				_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
				_, _ = fmt.Sscan(r.URL.Query().Get("limit"), &limit)
				list := cmapi.CertificateList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}}
				for i := from; i < there && (limit == 0 || i < from+limit); i++ {
					list.Items = append(list.Items, cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: fmt.Sprint("c", i), ResourceVersion: "5"}})
				}
				if limit > 0 {
					pages++
					if next := from + limit; next < there {
						list.Continue = fmt.Sprint(next)
					}
				}
				text, _ := json.Marshal(list)
				if limit == 0 && row.breaks {
					text = text[:len(text)/2]
				}
				_, _ = w.Write(text)
				if limit == 0 && row.breaks {
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
			}))
			defer server.Close()
			client, err := NewClient(&rest.Config{Host: server.URL})
			check(t, err)
			s := newStore(reduceCertificate)
			l := listed{client: client.CM, resource: certificates, narrow: all, kind: &cmapi.Certificate{}, reduce: s.Transformer()}
			got, err := l.list(t.Context(), metav1.ListOptions{})
			check(t, err)
			list := got.(*metav1.List)
			var objects []any
			for _, i := range list.Items {
				objects = append(objects, i.Object)
			}
			check(t, s.Replace(objects, list.ResourceVersion))
			last, v := s.get(key(fmt.Sprint("c", there-1)))
			if s.len() != there || last == nil || v != 5 || list.ResourceVersion != "9" || pages != row.pages {
				t.Errorf("%d objects of version %q, the last one %v, in %d pages", s.len(), list.ResourceVersion, last, pages)
			}
		})
	}
}

// issuedOnce is a Certificate as it is once it has been issued, with its request and Secret.
func issuedOnce(t *testing.T) (*cmapi.Certificate, *cmapi.CertificateRequest, *corev1.Secret) {
	t.Helper()
	at := time.Now()
	o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c", UID: "9e107d9d-372b-4d1b-9bd6-3f1e2a54ad09", ResourceVersion: "8"}, Spec: cmapi.CertificateSpec{
		SecretName: "c", DNSNames: []string{"c.example.org", "c.bench.svc", "c"}, IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	o.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Update", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:dnsNames":{}}}`)}}
	signer, err := workload.NewKey(&o.Spec)
	check(t, err)
	text, err := workload.Request(&o.Spec, signer)
	check(t, err)
	r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{
		Namespace: "n", Name: "c-1", UID: "9e107d9d-372b-4d1b-9bd6-3f1e2a54ad10", ResourceVersion: "8", ManagedFields: o.ManagedFields,
		Annotations:     map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: "1", cmapi.CertificateNameKey: "c", cmapi.CertificateRequestPrivateKeyAnnotationKey: "c"},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))},
	}, Spec: cmapi.CertificateRequestSpec{IssuerRef: o.Spec.IssuerRef, Request: text}}
	asked, err := workload.Read(r)
	check(t, err)
	signed, err := workload.SignSelf(asked, signer, nil, at)
	check(t, err)
	r.Status.Certificate, r.Status.CA = signed.Chain, signed.CA
	workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "cert-manager.io", "approved", at)
	workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, messageFetched, at)
	encoded, err := workload.EncodeKey(signer, &o.Spec)
	check(t, err)
	applied, err := workload.SecretOf(o, workload.Content{Key: encoded, Chain: signed.Chain, CA: signed.CA, Made: at, Name: o.Name, Issuer: o.Spec.IssuerRef}, workload.Passwords{}, "", false)
	check(t, err)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c", Labels: applied.Labels, Annotations: applied.Annotations, ResourceVersion: "8"}, Type: *applied.Type, Data: applied.Data}
	facts := workload.FactsOf(s)
	o.Status = workload.Settled(o, &facts, 1, at)
	return o, r, s
}

// TestStoresAreSmall holds the memory of 20,000 Certificates within 256 MiB: what is kept
// is 70 MB then, the collector lets it double, and the rest is the program.
func TestStoresAreSmall(t *testing.T) {
	const n, most = 1000, 4000 // bytes for each Certificate with its request and Secret
	o, r, secret := issuedOnce(t)
	s := newStores()
	fresh := func(from, into any) { // nothing of it is shared, as what comes from an API server
		data, err := json.Marshal(from)
		check(t, err)
		check(t, json.Unmarshal(data, into))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		name := fmt.Sprintf("c%05d", i)
		var c cmapi.Certificate
		var q cmapi.CertificateRequest
		var k corev1.Secret
		fresh(o, &c)
		fresh(r, &q)
		fresh(secret, &k)
		c.Name, c.Spec.SecretName, k.Name, q.Name, q.Annotations[cmapi.CertificateNameKey] = name, name, name, name+"-1", name
		q.OwnerReferences[0].Name = name
		check(t, s.certificates.Add(&c))
		check(t, s.requests.Add(&q))
		check(t, s.secrets.Add(&k))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int(after.HeapAlloc) - int(before.HeapAlloc)) / n; each > most {
		t.Errorf("%d bytes are kept of each, want no more than %d", each, most)
	} else {
		t.Logf("%d bytes each", each)
	}
	if s.certificates.len() != n || s.requests.len() != n || s.secrets.len() != n {
		t.Error("the stores have lost something")
	}
	if f, _ := s.secrets.get(key("c00007")); f == nil || f.Leaf == ([32]byte{}) {
		t.Errorf("the Secret was not read: %+v", f)
	}
	if f := s.requestsOf(key("c00007"), o.UID); len(f) != 1 || f[0].State != workload.RequestIssued {
		t.Errorf("the request was not read: %+v", f)
	}
}
