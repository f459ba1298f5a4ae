package kube_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

const requestYAML = `apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata:
  creationTimestamp: "2026-05-01T10:00:00Z"
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  name: csr-1
  uid: u-1
spec:
  expirationSeconds: 3600
  extra: {authentication.kubernetes.io/credential-id: [JTI=7]}
  groups: [system:nodes, system:authenticated]
  request: bm9uc2Vuc2U=
  signerName: kubernetes.io/kubelet-serving
  usages: [digital signature, server auth]
  username: system:node:w1
status: {}
`

const jsonRequest = `{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","spec":{"request":"","signerName":"a/b"}}`

func TestRequestsAreReadInEveryFormThatKubectlHas(t *testing.T) {
	indented := strings.ReplaceAll(strings.TrimSuffix(requestYAML, "\n"), "\n", "\n  ")
	for name, row := range map[string]struct {
		file string
		want int
	}{
		"one document":                      {requestYAML, 1},
		"a document with a byte order mark": {"\xef\xbb\xbf" + requestYAML, 1},
		"documents with empty ones between": {"---\n# first\n---\n" + requestYAML + "---\n" + requestYAML + "---\n", 2},
		"a list":                            {"apiVersion: v1\nkind: List\nitems:\n- " + indented + "\n- " + indented + "\n", 2},
		"JSON documents one after another":  {strings.Repeat(`{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","spec":{"request":"","signerName":"a/b"}}`+"\n", 3), 3},
		"a typed list, as the API sends it": {`{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequestList","items":[{"spec":{"request":"","signerName":"a/b"}}]}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := kube.ParseRequests([]byte(row.file))
			if err != nil || len(got) != row.want {
				t.Errorf("got %d requests, %v; want %d", len(got), err, row.want)
			}
		})
	}
}

func TestARequestKeepsAllThatDecisionsNeed(t *testing.T) {
	got, err := kube.ParseRequests([]byte(requestYAML))
	if err != nil {
		t.Fatal(err)
	}
	life := int32(3600)
	want := csr.Request{
		Name: "csr-1", UID: "u-1", SignerName: csr.KubeletServingSigner, Username: "system:node:w1",
		Groups: []string{"system:nodes", "system:authenticated"}, Extra: map[string][]string{"authentication.kubernetes.io/credential-id": {"JTI=7"}},
		Usages: []string{"digital signature", "server auth"}, ExpirationSeconds: &life, PEM: []byte("nonsense"),
		Created: got[0].Created, State: csr.Pending,
	}
	if d := cmp.Diff([]csr.Request{want}, got); d != "" {
		t.Error(d)
	}
}

func TestFilesThatHoldNoRequestAreErrors(t *testing.T) {
	change := func(old, replacement string) string { return strings.Replace(requestYAML, old, replacement, 1) }
	for name, row := range map[string]struct{ file, want string }{
		"nothing":                            {"", "is empty"},
		"a comment":                          {"# nothing\n", "is empty"},
		"text":                               {"hello", "no object of Kubernetes"},
		"a list of texts":                    {"[a, b]", "no object of Kubernetes"},
		"another kind":                       {change("CertificateSigningRequest", "Pod"), `is a "Pod"`},
		"a kind in other letters":            {change("CertificateSigningRequest", "certificatesigningrequest"), `is a "certificatesigningrequest"`},
		"the old version":                    {change("io/v1", "io/v1beta1"), "want certificates.k8s.io/v1"},
		"no version":                         {change("apiVersion: certificates.k8s.io/v1\n", ""), `apiVersion is ""`},
		"no kind":                            {change("kind: CertificateSigningRequest\n", ""), "kind is not set"},
		"no base64":                          {change("bm9uc2Vuc2U=", "'***'"), "spec.request is not base64"},
		"base64 for URLs":                    {change("bm9uc2Vuc2U=", "'-_8='"), "spec.request is not base64"},
		"a request that is no text":          {change("bm9uc2Vuc2U=", "7"), "cannot unmarshal number"},
		"an unknown field":                   {change("usages", "uses"), `unknown field "spec.uses"`},
		"a field in other letters":           {change("signerName", "signername"), `unknown field "spec.signername"`},
		"a field that is there twice":        {change("  username:", "  username: eve\n  username:"), "already set"},
		"no signer":                          {change("  signerName: kubernetes.io/kubelet-serving\n", ""), "spec.signerName is not set"},
		"a life that is too long":            {change("3600", "99999999999"), "cannot unmarshal number"},
		"groups that are one text":           {change("[system:nodes, system:authenticated]", "system:nodes"), "cannot unmarshal string"},
		"a good one beside a bad one":        {requestYAML + "---\nkind: Pod\n", "document 2: "},
		"a list that breaks in its":          {`{"kind":"List","items":[7]}`, "items[0] is no object"},
		"JSON with something after it":       {`{"kind":"List","items":[]} x`, "is not JSON"},
		"a second document after dots":       {requestYAML + "...\n" + requestYAML, "more than one YAML document"},
		"anything after dots":                {requestYAML + "...\n%%%\n", "is not YAML"},
		"objects in JSON after a comment":    {"# two\n" + jsonRequest + jsonRequest, "is not YAML"},
		"an object between JSON and hyphens": {jsonRequest + "\n" + jsonRequest + "\n---\n" + jsonRequest, "is not YAML"},
		"documents at the line ends of old Macintoshes": {strings.ReplaceAll(requestYAML+"---\n"+requestYAML, "\n", "\r"), "more than one YAML document"},
		"a list with two fields of items":               {`{"kind":"List","apiVersion":"v1","items":[],"items":[` + jsonRequest + `]}`, "items"},
		"a list with items in other letters":            {`{"kind":"List","apiVersion":"v1","items":[` + jsonRequest + `],"Items":[` + jsonRequest + `]}`, "Items"},
		"an alias bomb":                                 {bomb(), "is not YAML"},
		"YAML larger than allowed":                      {"a: " + strings.Repeat("x", 33<<20), "give it as JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := kube.ParseRequests([]byte(row.file))
			if err == nil || !strings.Contains(err.Error(), row.want) || got != nil {
				t.Errorf("got %d requests, %v; want an error with %q", len(got), err, row.want)
			}
		})
	}
}

// bomb is a small document that would be millions of values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	return b.String()
}

func TestNodesOfANewerClusterAreRead(t *testing.T) {
	got, err := kube.ParseNodes([]byte(`{"apiVersion":"v1","kind":"List","items":[
		{"apiVersion":"v1","kind":"Node","metadata":{"name":"w1","labels":{"node-role.kubernetes.io/control-plane":""}},
		 "spec":{"new":1},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"Hostname","address":"w1"},{"type":"Newer","address":"x"}],
		 "conditions":[{"type":"Ready","status":"True"}]}}]}`))
	want := []csr.Node{{Name: "w1", Names: []string{"w1"}, Addresses: []string{"10.0.0.1"}, ControlPlane: true, Ready: true}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if got, err := kube.ParseNodes([]byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"w1"},"status":{"addresses":[]},"status":{}}`)); err == nil {
		t.Errorf("a Node with two fields of one name is %v", got)
	}
	if got, err := kube.ParseNodes([]byte("kind: NodeList\napiVersion: v1\nitems: []\n")); err != nil || len(got) != 0 {
		t.Errorf("an empty list is %v, %v; want no nodes", got, err)
	}
}

// FuzzParseRequests looks for panics, and for requests that no signer is named
// in: what is returned has passed all checks.
func FuzzParseRequests(f *testing.F) {
	f.Add([]byte(requestYAML))
	f.Add([]byte(`{"kind":"CertificateSigningRequestList","apiVersion":"certificates.k8s.io/v1","items":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := kube.ParseRequests(data)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%d requests and %v", len(all), err)
		}
		for _, r := range all {
			if r.SignerName == "" {
				t.Error("a request without a signer")
			}
		}
	})
}
