//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	labload "github.com/kubepki/kubepki/lab/internal/load"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// supervised is a lab as kubepki-lab up makes it, in the test's own namespaces.
type supervised struct {
	folder cluster.Folder
	spec   cluster.Wanted
	client *supervisor.Client
}

// startLab makes a lab and waits until all of it is ready.
func startLab(t *testing.T, wanted cluster.Wanted) *supervised {
	t.Helper()
	l := &supervised{folder: cluster.Folder(t.TempDir()), spec: wanted}
	l.create(t, l.folder)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		ended <- supervisor.Run(ctx, supervisor.Options{Folder: l.folder, Programs: programs, Log: log})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var err error
	if l.client, err = supervisor.NewClient(l.folder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.client.Close() })
	l.awaitReady(t)
	return l
}

// create makes the credentials of the lab in a folder.
func (l *supervised) create(t *testing.T, f cluster.Folder) {
	t.Helper()
	spec, err := l.spec.Cluster()
	if err == nil {
		err = f.Claim(l.spec)
	}
	if err == nil {
		err = f.Make()
	}
	if err == nil {
		_, err = f.CreateCredentials(t.Context(), spec)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (l *supervised) awaitReady(t *testing.T) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		status, err := l.client.Status(t.Context())
		if err == nil && status.Ready {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("the lab is not ready: %+v, %v", status, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// traffic is a run of load in the background.
type traffic struct {
	begun  chan struct{} // requests are made
	failed chan labload.Failure
	stop   context.CancelFunc
	ended  chan *labload.Report
}

// begin makes traffic until it is told to end.
func (l *supervised) begin(t *testing.T, streams ...string) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	run := &traffic{begun: make(chan struct{}, 1), failed: make(chan labload.Failure, 1), stop: cancel, ended: make(chan *labload.Report, 1)}
	go func() {
		report, err := labload.Run(ctx, labload.Options{
			Folder: l.folder, Streams: streams,
			OnProgress: func(labload.Progress) { offer(run.begun, struct{}{}) },
			OnFailure:  func(f labload.Failure) { offer(run.failed, f) },
		})
		if err != nil {
			t.Error(err)
		}
		run.ended <- report
	}()
	<-run.begun
	return run
}

// offer sends unless nobody has taken the last one.
func offer[T any](to chan T, value T) {
	select {
	case to <- value:
	default:
	}
}

// end ends the traffic and returns its report.
func (r *traffic) end(t *testing.T) *labload.Report {
	t.Helper()
	r.stop()
	report := <-r.ended
	if report == nil {
		t.FailNow()
	}
	return report
}

// failures are those of one stream.
func failures(r *labload.Report, stream string) []labload.Failure {
	return slices.DeleteFunc(slices.Clone(r.Failures), func(f labload.Failure) bool { return f.Stream != stream })
}

func requests(r *labload.Report, stream string) int {
	i := slices.IndexFunc(r.Streams, func(s labload.StreamReport) bool { return s.Name == stream })
	if i < 0 {
		return 0
	}
	return r.Streams[i].Requests
}

func TestLoad(t *testing.T) {
	l := startLab(t, cluster.Wanted{Workers: 1})
	t.Run("a quiet lab fails no request", l.testQuiet)
	t.Run("an API server that is away is reported", l.testAway)
	t.Run("a serving certificate that nobody trusts fails new connections alone", l.testForeignCertificate)
	t.Run("nothing of it is left", l.testNothingLeft)
}

// kinds are the kinds of streams of a lab with one control plane and one worker.
var kinds = []string{
	"aggregated", "aggregated-user", "controller-manager", "controller-manager-lease", "etcd", "etcd-long-lived", "exec", "exec-spdy",
	"join", "kube-proxy", "kubelet", "kubelet-lease", "logs", "long-lived", "metrics", "new-connection", "nodes-proxy", "pod", "reads",
	"scheduler", "scheduler-lease", "token", "token-held", "watch", "webhook", "writes",
}

func (l *supervised) testQuiet(t *testing.T) {
	report, err := labload.Run(t.Context(), labload.Options{Folder: l.folder, For: 12 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	noneFailed(t, report)
	var seen []string
	for _, s := range report.Streams {
		kind, _, _ := strings.Cut(s.Name, "/")
		seen = append(seen, kind)
	}
	slices.Sort(seen)
	if diff := cmp.Diff(kinds, slices.Compact(seen)); diff != "" {
		t.Errorf("kinds of streams (-want +got):\n%s", diff)
	}
	if len(report.NotHere) != 1 || report.NotHere[0].Stream != "etcd-peers" {
		t.Errorf("not here: %+v; want etcd-peers alone", report.NotHere)
	}
}

// noneFailed wants requests of each stream, and no failure.
func noneFailed(t *testing.T, report *labload.Report) {
	t.Helper()
	for _, f := range report.Failures {
		t.Errorf("%s %s (link %d): %s", f.Time.Format(time.RFC3339Nano), f.Stream, f.Link, f.Error)
	}
	for _, s := range report.Streams {
		if s.Requests == 0 {
			t.Errorf("%s has made no request", s.Name)
		}
	}
	if report.LeftBehind != "" {
		t.Errorf("left behind: %s", report.LeftBehind)
	}
}

func (l *supervised) testAway(t *testing.T) {
	run := l.begin(t, "reads", "new-connection", "watch", "etcd")
	stopped := time.Now()
	if _, err := l.client.Do(t.Context(), "stop", []string{"cp1/kube-apiserver"}); err != nil {
		t.Fatal(err)
	}
	away := time.Now()
	time.Sleep(2 * time.Second) // the time that users miss it
	if _, err := l.client.Do(t.Context(), "start", []string{"cp1/kube-apiserver"}); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	<-run.begun
	<-run.begun // two seconds of traffic
	<-run.begun
	report := run.end(t)
	for _, stream := range []string{"reads", "new-connection", "watch"} {
		failed := failures(report, stream)
		if len(failed) == 0 || len(failed) == requests(report, stream) {
			t.Errorf("%s: want some of %d requests to fail, got %d", stream, requests(report, stream), len(failed))
		}
		if !slices.ContainsFunc(failed, func(f labload.Failure) bool { return f.Time.After(away) && f.Time.Before(back) }) {
			t.Errorf("%s: no failure between %s and %s: %+v", stream, away, back, failed)
		}
		for _, f := range failed {
			if f.Time.Before(stopped) || f.Time.After(back.Add(time.Second)) {
				t.Errorf("%s: a failure at %s, but the API server was away from %s to %s: %s", stream, f.Time, stopped, back, f.Error)
			}
		}
	}
	if report.LeftBehind != "" {
		t.Errorf("left behind: %s", report.LeftBehind)
	}
	if failed := failures(report, "etcd/cp1"); len(failed) > 0 {
		t.Errorf("etcd was there: %+v", failed)
	}
}

// testForeignCertificate gives the API server the certificate that another
// cluster of the same shape has for it.
func (l *supervised) testForeignCertificate(t *testing.T) {
	foreign := cluster.Folder(t.TempDir())
	l.create(t, foreign)
	own := l.pair(t, l.folder)
	run := l.begin(t, "new-connection", "long-lived")
	l.serve(t, l.pair(t, foreign))
	select {
	case f := <-run.failed:
		if f.Stream != "new-connection" || !strings.Contains(f.Error, "certificate signed by unknown authority") {
			t.Errorf("the first failure: %+v", f)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing has failed")
	}
	<-run.begun
	<-run.begun // more than a second with the foreign certificate
	report := run.end(t)
	if report.LeftBehind != "" {
		t.Errorf("left behind: %s", report.LeftBehind)
	}
	if failed := failures(report, "long-lived"); len(failed) > 0 || requests(report, "long-lived") == 0 {
		t.Errorf("the connection that is kept: %d requests, failures %+v", requests(report, "long-lived"), failed)
	}
	l.serve(t, own)
	eventually(t, "new connections work again", func(ctx context.Context) error {
		_, err := labload.Run(ctx, labload.Options{Folder: l.folder, For: time.Second, Streams: []string{"new-connection"}})
		return err // it calls the API itself
	})
}

var servingPair = []string{"apiserver.crt", "apiserver.key"}

func (l *supervised) pair(t *testing.T, f cluster.Folder) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range servingPair {
		files[name] = read(t, filepath.Join(f.Root("cp1"), "etc/kubernetes/pki", name))
	}
	return files
}

// serve gives the API server a serving pair, which it takes up by itself.
func (l *supervised) serve(t *testing.T, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(l.folder.Root("cp1"), "etc/kubernetes/pki", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testNothingLeft looks for what carries the label of a run.
func (l *supervised) testNothingLeft(t *testing.T) {
	spec, err := l.spec.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.folder.AdminConf(spec))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"},
		{Version: "v1", Resource: "serviceaccounts"}, {Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
		{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"},
		{Group: "wardle.example.com", Version: "v1alpha1", Resource: "flunders"},
	} {
		eventually(t, "no "+resource.Resource+" are left", func(ctx context.Context) error {
			list, err := client.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: "lab.kubepki.dev/load"})
			if err == nil && len(list.Items) > 0 {
				return fmt.Errorf("%d, the first is %s", len(list.Items), list.Items[0].Name)
			}
			return err
		})
	}
}

// The ten quiet minutes, in which nothing may fail.
func TestLoadForTenMinutes(t *testing.T) {
	if os.Getenv("KUBEPKI_LAB_LONG") == "" {
		t.Skip("takes twenty-five minutes: set KUBEPKI_LAB_LONG, as make test-long does")
	}
	for name, wanted := range map[string]cluster.Wanted{
		"one control plane":    {Workers: 2},
		"three control planes": {ControlPlanes: 3, Workers: 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLab(t, wanted)
			report, err := labload.Run(t.Context(), labload.Options{Folder: l.folder, For: 10 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			noneFailed(t, report)
			var table strings.Builder
			if err := report.Table(&table); err != nil {
				t.Error(err)
			}
			t.Log("\n" + table.String())
		})
	}
}
