package kubeevents_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedeventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/kubeevents"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// api takes Events.
type api struct {
	typedeventsv1.EventsV1Interface
	mu   sync.Mutex
	made []*eventsv1.Event
	fail int // how many calls fail before one succeeds
}

type inNamespace struct {
	typedeventsv1.EventInterface
	*api
	namespace string
}

func (a *api) Events(namespace string) typedeventsv1.EventInterface {
	return inNamespace{api: a, namespace: namespace}
}

func (n inNamespace) Create(_ context.Context, e *eventsv1.Event, _ metav1.CreateOptions) (*eventsv1.Event, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.namespace != e.Namespace || e.Namespace == "" || e.EventTime.IsZero() || e.ReportingController == "" || e.ReportingInstance == "" || e.Action == "" || e.Reason == "" || len(e.Note) > 1024 || !utf8.ValidString(e.Note) {
		return nil, fmt.Errorf("not valid: %+v", e)
	}
	if n.fail > 0 {
		n.fail--
		return nil, errors.New("the API server is gone")
	}
	n.made = append(n.made, e)
	return e, nil
}

// take returns what was made since the last time, a line each.
func (a *api) take() []string {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, e := range a.made {
		all = append(all, fmt.Sprintf("%s %s %s %s/%s %s: %s", e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Namespace, e.Regarding.Name, e.Regarding.UID, e.Note))
	}
	a.made = nil
	return all
}

func start(t *testing.T, a *api) *agent.Board {
	b := agent.NewBoard(nil)
	teller := kubeevents.New(b, kubeevents.Options{Events: a, Node: "cp1", UID: func(path string) string { return "uid-of-" + path }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = teller.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; synctest.Wait() })
	return b
}

func certificate(p trust.Place, left time.Duration) brief.Certificate {
	c := &x509.Certificate{Raw: fmt.Append(nil, p, left), Subject: pkix.Name{CommonName: "x"}, SerialNumber: big.NewInt(1), NotBefore: time.Now().AddDate(0, 0, -300), NotAfter: time.Now().Add(left)}
	return brief.New(p, 0, c)
}

type holder []brief.Certificate

func (h holder) Each(yield func(brief.Certificate) bool) { slices.Values(h)(yield) }
func (h holder) Sources() []agent.Source                 { return nil }

const day = 24 * time.Hour

func TestWhatEndsSoonIsToldOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		b := start(t, a)
		file := func(name string) trust.Place { return trust.Place{Path: "/etc/kubernetes/pki/" + name} }
		object := func(path string) trust.Place {
			return trust.Place{Node: trust.ClusterNode, Path: path, Field: "data[tls.crt]"}
		}
		b.Include(holder{certificate(object("secret/shop/front"), -3*day), certificate(object("secret/shop/good"), 60*day), certificate(object("validatingwebhookconfiguration/v"), 2*day)})
		b.Verified(&agent.Verified{Certificates: []brief.Certificate{certificate(file("apiserver.crt"), 5*day), certificate(file("ca.crt"), 400*day), certificate(file("etcd/peer.crt"), 6*day)}})
		want := []string{
			"Warning CertificateExpiring Secret shop/front uid-of-secret/shop/front: certificates that end soon: data[tls.crt] (expired 3d ago)",
			"Warning CertificateExpiring ValidatingWebhookConfiguration /v uid-of-validatingwebhookconfiguration/v: certificates that end soon: data[tls.crt] (2d)",
			"Warning CertificateExpiring Node /cp1 cp1: certificates that end soon: /etc/kubernetes/pki/apiserver.crt (5d), /etc/kubernetes/pki/etcd/peer.crt (6d)",
		}
		if diff := cmp.Diff(want, a.take()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(12 * time.Hour)
		if got := a.take(); got != nil {
			t.Errorf("told again: %q", got)
		}
		time.Sleep(13 * time.Hour)
		if got := a.take(); len(got) != 3 {
			t.Errorf("the next day: %q", got)
		}
	})
}

func TestDecisionsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{fail: 2} // which is tried again
		b := start(t, a)
		until := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
		b.Decided(agent.Decision{Action: agent.Renewed, ID: "cp1/apiserver", Node: "cp1", Text: "it was due", NotAfter: until})
		b.Decided(agent.Decision{Action: agent.Renewed, ID: "cp1/scheduler.conf", Node: "cp1", Text: "it was due", NotAfter: until})
		for range 5 { // it is tried each minute
			b.Decided(agent.Decision{Action: agent.Failed, ID: "cp1/etcd-server", Node: "cp1", Reason: "not-signed", Text: "no\x1b[31m key\xff"})
		}
		b.Decided(agent.Decision{Action: agent.Refused, ID: "cp1/etcd-peer", Node: "cp1", Reason: "would-break", Text: "a link would break"})
		b.Decided(agent.Decision{Action: agent.Restarted, ID: "cp1/etcd", Node: "cp1", Text: strings.Repeat("ä", 5000)})
		b.Decided(agent.Decision{Action: agent.Stuck, ID: "cp1/kube-scheduler", Node: "cp1", Text: "it did not come back"})
		time.Sleep(30 * time.Second)
		got := a.take()
		want := []string{
			"Normal CertificateRenewed Node /cp1 cp1: cp1/apiserver: it was due (until 2030-01-02)", "Normal CertificateRenewed Node /cp1 cp1: cp1/scheduler.conf: it was due (until 2030-01-02)",
			"Warning RenewalFailed Node /cp1 cp1: cp1/etcd-server: no?[31m key?", "Warning RenewalFailed Node /cp1 cp1: cp1/etcd-peer: a link would break",
			"Normal ComponentRestarted Node /cp1 cp1: cp1/etcd: ä", "Warning RestartFailed Node /cp1 cp1: cp1/kube-scheduler: it did not come back",
		}
		if len(got) != len(want) {
			t.Fatalf("%d Events: %.1000q", len(got), got)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("got %.200q, want %q", got[i], want[i])
			}
		}
	})
}

func TestBrokenLinksAreToldWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		b := start(t, a)
		read := func(links ...report.VerifiedLink) {
			b.Verified(&agent.Verified{Verification: report.Verification{Links: links}})
		}
		bad := report.VerifiedLink{Number: 3, Caller: "cp1/kube-apiserver", Callee: "cp2/etcd", Findings: []string{"cert-expired"}}
		good := report.VerifiedLink{Number: 5, Caller: "cp1/kube-scheduler", Callee: "cp1/kube-apiserver", OK: true}
		for range 30 {
			read(bad, good)
			time.Sleep(time.Minute)
		}
		want := []string{"Warning LinkBroken Node /cp1 cp1: broken: link 3 from cp1/kube-apiserver to cp2/etcd (cert-expired); kubepki verify tells the cause"}
		if diff := cmp.Diff(want, a.take()); diff != "" {
			t.Error(diff)
		}
		for i := range 60 { // it comes and goes
			good.OK = i%2 == 0
			read(bad, good)
			time.Sleep(time.Minute)
		}
		if n := len(a.take()); n < 1 || n > 7 {
			t.Errorf("%d Events in an hour", n)
		}
	})
}

func TestAFloodIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		b := start(t, a)
		var many holder
		for i := range 5000 {
			many = append(many, certificate(trust.Place{Node: trust.ClusterNode, Path: fmt.Sprintf("secret/ns/s%04d", i), Field: "data[tls.crt]"}, time.Duration(i)*time.Second))
		}
		b.Include(many)
		b.Verified(&agent.Verified{})
		time.Sleep(10 * time.Minute)
		got := a.take()
		if len(got) < 60 || len(got) > 90 {
			t.Errorf("%d Events in ten minutes", len(got))
		}
		if !strings.Contains(got[0], "s0000") {
			t.Errorf("the first is not that which ends first: %s", got[0])
		}
		b.Decided(agent.Decision{Action: agent.Failed, ID: "cp1/apiserver", Text: "no"})
		time.Sleep(time.Hour)
		if !slices.ContainsFunc(a.take(), func(e string) bool { return strings.Contains(e, "RenewalFailed") }) {
			t.Error("a decision was lost among them")
		}
	})
}
