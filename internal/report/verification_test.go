package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

var at = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func sample() *report.Verification {
	half := func(side string, s check.State, p check.Proof) check.Half {
		return check.Half{Side: side, State: s, Proof: p}
	}
	link := func(caller, callee string) *trust.Link { return &trust.Link{Number: 3, Caller: caller, Callee: callee} }
	r := &check.Result{
		Links: []check.JudgedLink{
			{Link: link("cp1/kube-apiserver", "cp1/etcd"), Halves: []check.Half{half("client", check.OK, check.ByHandshake), half("server", check.OK, check.ByChain)}},
			{Link: link("cp2/kube-apiserver", "cp1/etcd"), Halves: []check.Half{half("client", check.OK, check.ByHandshake), half("server", check.OK, check.ByChain)}},
			{Link: link("cp1/kube-apiserver", "cp2/etcd"), Halves: []check.Half{half("client", check.Broken, check.ByChain), half("server", check.Unseen, check.NoProof)}, Findings: []string{"cert-expired"}},
		},
		Findings: []check.Finding{{
			ID: "cert-expired", Severity: check.Error, Links: []int{3}, Node: "cp2", Path: "/a", Paths: []string{"/a", "/b"}, Field: "f",
			Cause: "it expired", Fix: "mend it", Consequences: []check.Consequence{{ID: "cert-outlives-ca", Path: "/c"}},
		}},
	}
	v := report.NewVerification(&trust.Graph{Nodes: []trust.Node{{Name: "cp1", Layout: "kubeadm"}, {Name: "cp2", Layout: "kubeadm"}, {Name: "users", Layout: "users"}}}, r, at)
	return &v
}

func TestTextJoinsLinksAndSaysTheFinding(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Text(&b, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	want := `#  CALLER                      CALLEE       CALLER'S CREDENTIAL  CALLEE'S CREDENTIAL  FINDINGS
3  kube-apiserver of cp1, cp2  etcd of cp1  ok (handshake)       ok (chain)
3  kube-apiserver of cp1       etcd of cp2  broken               unseen               cert-expired

error cert-expired (link 3)
  cause: it expired
  where: cp2:/a (f)
         /b
  fix:   mend it
  hence: cert-outlives-ca /c

not healthy at 2026-06-01T12:00:00Z: 3 links, 1 broken, 1 of 6 halves not seen; 1 errors, 0 warnings, 0 infos
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestColoursAreOnlyAddedWhenAsked(t *testing.T) {
	var plain, coloured bytes.Buffer
	for w, p := range map[*bytes.Buffer]report.Palette{&plain: {}, &coloured: {On: true}} {
		if err := sample().Text(w, p); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(coloured.String(), "\x1b[31m") {
		t.Errorf("plain: %q\ncoloured: %q", plain.String(), coloured.String())
	}
}

// TestSeveralClustersAreOneDocument: what is printed piece by piece parses as a
// whole, and as the same whole in both forms.
func TestSeveralClustersAreOneDocument(t *testing.T) {
	for _, count := range []int{0, 1, 3} {
		var docs [2]any
		for i, format := range []string{"json", "yaml"} {
			var b bytes.Buffer
			p := report.Printer{W: &b, Format: format, Several: true}
			for range count {
				if err := p.Print(sample()); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			data := b.Bytes()
			if format == "yaml" {
				var err error
				if data, err = yaml.YAMLToJSON(data); err != nil {
					t.Fatalf("%d clusters: %v\n%s", count, err, b.String())
				}
			}
			if err := json.Unmarshal(data, &docs[i]); err != nil {
				t.Fatalf("%d clusters: %v\n%s", count, err, b.String())
			}
			list := docs[i].(map[string]any)
			if items, _ := list["items"].([]any); list["kind"] != "VerificationList" || len(items) != count {
				t.Errorf("%d clusters: got %v", count, list)
			}
		}
		if diff := cmp.Diff(docs[0], docs[1]); diff != "" {
			t.Errorf("%d clusters: JSON and YAML differ:\n%s", count, diff)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	v := report.NewVerification(&trust.Graph{}, &check.Result{}, at)
	var b bytes.Buffer
	if err := report.Document(&b, "json", v); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "null") {
		t.Error(b.String())
	}
}
