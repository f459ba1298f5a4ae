package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
	"github.com/kubepki/kubepki/internal/workload"
)

// mounted is a folder as a kubelet mounts a ConfigMap: names lead through ..data, which
// is swung as a whole.
type mounted struct {
	t   *testing.T
	dir string
	n   int
}

func (m *mounted) put(files map[string]string) {
	m.t.Helper()
	must := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	m.n++
	version := strings.Repeat("v", m.n)
	must(os.Mkdir(filepath.Join(m.dir, version), 0o700))
	for name, text := range files {
		must(os.WriteFile(filepath.Join(m.dir, version, name), []byte(text), 0o600))
		if _, err := os.Lstat(filepath.Join(m.dir, name)); err != nil {
			must(os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)))
		}
	}
	must(os.Symlink(version, filepath.Join(m.dir, "..next")))
	must(os.Rename(filepath.Join(m.dir, "..next"), filepath.Join(m.dir, "..data")))
}

// figures are the gauges of a policy.
func figures(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetGauge() != nil {
				all[f.GetName()] = m.GetGauge().GetValue()
			}
		}
	}
	return all
}

func testRun(log *bytes.Buffer) (*controllerRun, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	return &controllerRun{log: slog.New(slog.NewJSONHandler(log, nil)), metrics: controller.NewMetrics(registry)}, registry
}

const workloadPolicyText = "apiVersion: kubepki.dev/v1alpha1\nkind: WorkloadPolicy\nmaxDuration: "

func TestAWorkloadPolicyIsReadAgain(t *testing.T) {
	m := &mounted{t: t, dir: t.TempDir()}
	m.put(map[string]string{"policy.yaml": workloadPolicyText + "1h\n"})
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, registry := testRun(&log)
		l, err := openPolicy(r, "workload", filepath.Join(m.dir, "policy.yaml"), func(data []byte, _ func(string) ([]byte, error)) (*workload.Policy, error) {
			return policy.ParseWorkload(data)
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var woken atomic.Int32
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		running.Go(func() { _ = l.wake(ctx, func() { woken.Add(1) }) })
		holds := func(step string, life time.Duration, successful float64, wakes int32) {
			t.Helper()
			time.Sleep(6 * time.Second)
			synctest.Wait()
			f := figures(t, registry)
			if l.get().MaxDuration != life || f["kubepki_policy_last_reload_successful"] != successful || woken.Load() != wakes {
				t.Errorf("%s: %s, %v, woken %d times; want %s, %v, %d\n%s", step, l.get().MaxDuration, f, woken.Load(), life, successful, wakes, log.String())
			}
		}
		holds("as it was at first", time.Hour, 1, 0)
		m.put(map[string]string{"policy.yaml": workloadPolicyText + "2h\n"})
		holds("another", 2*time.Hour, 1, 1)
		at := figures(t, registry)["kubepki_policy_last_reload_success_timestamp_seconds"]
		m.put(map[string]string{"policy.yaml": workloadPolicyText + "2h\nrulez: []\n"})
		holds("a bad one", 2*time.Hour, 0, 1)
		if text := log.String(); strings.Count(text, "not taken up") != 1 || !strings.Contains(text, "rulez") {
			t.Errorf("the log does not say once what is wrong:\n%s", text)
		}
		if now := figures(t, registry)["kubepki_policy_last_reload_success_timestamp_seconds"]; now != at {
			t.Errorf("the time of the last success moved from %v to %v", at, now)
		}
		m.put(map[string]string{"policy.yaml": workloadPolicyText + "3h\n"})
		holds("a good one again", 3*time.Hour, 1, 2)
		stop()
		running.Wait()
	})
}

const signingPolicyText = "apiVersion: kubepki.dev/v1alpha1\nkind: SigningPolicy\nconfirm: {addressesFile: "

func addressesText(name string) string {
	return "apiVersion: kubepki.dev/v1alpha1\nkind: NodeAddresses\naddresses: {" + name + ": [" + name + ".example.test]}\n"
}

func TestASigningPolicyIsReadAgainWithTheFileThatItNames(t *testing.T) {
	m := &mounted{t: t, dir: t.TempDir()}
	files := map[string]string{"policy.yaml": signingPolicyText + "a.yaml}\n", "a.yaml": addressesText("one"), "b.yaml": addressesText("two")}
	m.put(files)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, registry := testRun(&log)
		var o controllerOptions
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.csr.policy.add(flags)
		if err := flags.Parse([]string{"--policy=" + filepath.Join(m.dir, "policy.yaml"), "--bootstrap-groups=ours"}); err != nil {
			t.Fatal(err)
		}
		l, err := o.signingPolicy(r)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var now atomic.Pointer[csr.Policy]
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) })
		terms, atWork := 0, 0
		running.Go(func() {
			_ = l.each(ctx, func(ctx context.Context, p csr.Policy) error {
				terms, atWork = terms+1, atWork+1
				now.Store(&p)
				<-ctx.Done()
				time.Sleep(time.Second) // what has been begun is finished
				atWork--
				return nil
			})
		})
		works := func(step, node string, successful float64) {
			t.Helper()
			time.Sleep(15 * time.Second)
			synctest.Wait()
			p := now.Load()
			if p.Addresses[node] == nil || len(p.Addresses) != 1 || !slices.Equal(p.BootstrapGroups, []string{"ours"}) || atWork != 1 || figures(t, registry)["kubepki_policy_last_reload_successful"] != successful {
				t.Errorf("%s: %v of %v, %d at work, %v\n%s", step, p.Addresses, p.BootstrapGroups, atWork, figures(t, registry), log.String())
			}
		}
		works("as it was at first", "one", 1)
		if terms != 1 {
			t.Errorf("without a change it began %d times", terms)
		}
		files["a.yaml"] = addressesText("three")
		m.put(files)
		works("the file that it names has changed", "three", 1)
		files["policy.yaml"] = signingPolicyText + "b.yaml}\n"
		m.put(files)
		works("it names another file", "two", 1)
		files["b.yaml"] = addressesText("four")
		m.put(files)
		works("and that has changed", "four", 1)
		files["b.yaml"] = "nothing\n"
		m.put(files)
		works("and is bad", "four", 0)
		files["b.yaml"] = addressesText("five")
		m.put(files)
		works("and is good", "five", 1)
		stop()
		running.Wait()
	})
}

func TestAPolicyOfStandardInputIsReadOnce(t *testing.T) {
	var log bytes.Buffer
	r, _ := testRun(&log)
	r.streams.in = strings.NewReader(workloadPolicyText + "1h\n")
	l, err := openPolicy(r, "workload", "-", func(data []byte, _ func(string) ([]byte, error)) (*workload.Policy, error) {
		return policy.ParseWorkload(data)
	})
	if err != nil || l.get().MaxDuration != time.Hour || !strings.Contains(log.String(), "not read again") {
		t.Fatalf("%v\n%s", err, log.String())
	}
	l.look()
	if l.get().MaxDuration != time.Hour {
		t.Error("it has changed")
	}
}
