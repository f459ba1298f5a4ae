package mtlsmetrics_test

import (
	"crypto/x509/pkix"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsmetrics"
)

// write makes a pair and a bundle of two authorities in a folder.
func write(dir string) mtls.Files {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	var all []issue.Authority
	for days := range 2 {
		key := tlstest.Key(tlstest.Panics, issue.ECDSAP256)
		c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now, NotAfter: now.AddDate(100, 0, 2-days)}, key)
		check(err)
		all = append(all, issue.Authority{Certificate: c, Key: key})
	}
	files := tlstest.Files(dir, "tls")
	tlstest.Put(tlstest.Panics, files.Bundle, tlstest.PEM(all...))
	tlstest.PutPair(tlstest.Panics, files, tlstest.Leaf(tlstest.Panics, all[1], "till", func(x *issue.Template) { x.NotBefore, x.NotAfter = now, now.AddDate(90, 0, 0) }))
	return files
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// gather returns the values by name, as a scrape would.
func gather(t *testing.T, s mtls.Source) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(mtlsmetrics.New(s))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) > 0 {
				t.Errorf("%s has labels", f.GetName())
			}
			all[strings.TrimPrefix(f.GetName(), "mtls_")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

func unix(year int, month time.Month, day int) float64 {
	return float64(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix())
}

func TestMetricsOfFiles(t *testing.T) {
	files := write(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		source, err := mtls.OpenFiles(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]float64{
			"certificate_not_before_timestamp_seconds": unix(2000, 1, 1), "certificate_not_after_timestamp_seconds": unix(2090, 1, 1),
			"bundle_anchors": 2, "bundle_earliest_not_after_timestamp_seconds": unix(2100, 1, 2),
			"changes_taken_total": 0, "changes_refused_total": 0, "refused": 0,
		}
		// Nobody connects: to collect is to look.
		collect := func() {
			t.Helper()
			var got map[string]float64
			for range 4 {
				time.Sleep(time.Second)
				got = gather(t, source)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		const asOf = "good_as_of_timestamp_seconds"
		want[asOf] = float64(time.Now().Unix() + 4)
		collect()
		if err := os.Rename(files.Key, files.Key+".away"); err != nil {
			t.Fatal(err)
		}
		want["refused"], want["changes_refused_total"] = 1, 1
		collect()
		if err := os.Rename(files.Key+".away", files.Key); err != nil {
			t.Fatal(err)
		}
		want["refused"], want["changes_taken_total"], want[asOf] = 0, 1, float64(time.Now().Unix()+4)
		collect()
	})
}

func TestMetricsOfWhatIsNotThere(t *testing.T) {
	for _, s := range []mtls.Source{&mtls.Memory{}, &mtls.Snapshot{}, (*mtls.Snapshot)(nil)} {
		if got := gather(t, s); len(got) != 0 {
			t.Errorf("%T: %v", s, got)
		}
	}
	if got := gather(t, &mtls.Snapshot{Bundle: &mtls.Bundle{}}); len(got) != 1 || got["bundle_anchors"] != 0 {
		t.Errorf("a bundle that nobody has made: %v", got)
	}
}

func ExampleNew() {
	dir, err := os.MkdirTemp("", "mtls")
	check(err)
	defer os.RemoveAll(dir)
	source, err := mtls.OpenFiles(write(dir), nil) // tls.crt, tls.key and ca.crt
	check(err)

	registry := prometheus.NewRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{"source": "clients"}, registry).MustRegister(mtlsmetrics.New(source))
	families, err := registry.Gather()
	check(err)
	for _, f := range families {
		if f.GetName() == "mtls_bundle_anchors" || f.GetName() == "mtls_refused" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetLabel()[0].GetValue(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output:
	// mtls_bundle_anchors clients 2
	// mtls_refused clients 0
}
