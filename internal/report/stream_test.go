package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/report"
)

type requestList struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Items      []report.Request `json:"items"`
}

func TestAStreamIsTheDocument(t *testing.T) {
	life := int32(600)
	one := report.NewRequest(csr.Request{Name: "a", SignerName: "x/y<z>", Username: "jane", ExpirationSeconds: &life, PEM: []byte("none"), State: csr.Pending}, &csr.Review{Verdict: csr.Deny, Reasons: []csr.Reason{{ID: "bad", Message: "it's \"bad\""}}})
	for _, items := range [][]report.Request{{}, {one}, {one, one, one}} {
		for _, format := range []string{"json", "yaml"} {
			var want, got bytes.Buffer
			if err := report.Document(&want, format, requestList{report.APIVersion, "RequestList", items}); err != nil {
				t.Fatal(err)
			}
			s := report.NewStream(&got, format, "RequestList")
			for _, i := range items {
				if err := s.Add(i); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.String(), got.String()); d != "" {
				t.Errorf("%d items as %s (-document +stream):\n%s", len(items), format, d)
			}
		}
	}
}

func TestColumnsGrowAndNeverShrink(t *testing.T) {
	var b bytes.Buffer
	c := report.NewColumns(&b)
	for _, row := range [][]string{{"NAME", "STATE"}, {"jörg", "Pending"}, {"a-longer-name", "-"}, {"b", "-"}} {
		if err := c.Print(row); err != nil {
			t.Fatal(err)
		}
	}
	const want = "NAME  STATE\njörg  Pending\na-longer-name  -\nb              -\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestARequestIsOneRowWhateverStandsInIt(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	life := int32(3600)
	r := report.NewRequest(csr.Request{Name: "a", SignerName: csr.KubeletServingSigner, Username: "eve\n\x1b[31m", Created: at.Add(-time.Hour), ExpirationSeconds: &life, PEM: []byte("none"), State: csr.Pending}, nil)
	got := r.Row(at, false, true, report.Palette{})
	want := []string{"a", "60m", "kubelet-serving", "eve??[31m", "unreadable: is no PEM", "Pending", "1h", "-", "-"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if head := report.RequestHead(false, true); len(head) != len(got) {
		t.Errorf("the head has %d cells, the row %d: %s", len(head), len(got), strings.Join(head, " "))
	}
}
