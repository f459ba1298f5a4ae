package certmanager

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// TestAnOwnerCountsOnlyWhereItAsksForTheSame has a policy that approves what is of the
// Certificate "web" alone, and denies the rest.
func TestAnOwnerCountsOnlyWhereItAsksForTheSame(t *testing.T) {
	spec := cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.n.svc"}, IssuerRef: cmmeta.IssuerReference{Name: "internal", Kind: "ClusterIssuer"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}}
	policy := &workload.Policy{DenyOthers: true, Rules: []workload.Rule{{
		Name: "web", Namespaces: []string{"n"}, Speaks: []string{workload.VarDNSNames},
		Issuers: []workload.IssuerPattern{{Group: "cert-manager.io", Kind: "ClusterIssuer", Name: "internal"}},
		Approve: func(q workload.Petition, _ *workload.Seen) (bool, error) { return q.Certificate == "web", nil },
	}}}
	for _, row := range []struct {
		name   string
		change func(*cmapi.CertificateRequest, *cmapi.CertificateSpec)
		want   Verdict
		again  bool
	}{
		{"the request of the Certificate", func(*cmapi.CertificateRequest, *cmapi.CertificateSpec) {}, Approved, false},
		{"a request of nobody", func(r *cmapi.CertificateRequest, _ *cmapi.CertificateSpec) { r.OwnerReferences = nil }, Denied, false},
		{"a request that asks for another name", func(_ *cmapi.CertificateRequest, s *cmapi.CertificateSpec) { s.DNSNames = []string{"bank.n.svc"} }, Denied, false},
		{"a request of a Certificate that was before", func(r *cmapi.CertificateRequest, _ *cmapi.CertificateSpec) {
			r.OwnerReferences[0].UID, r.CreationTimestamp = "old", metav1.NewTime(time.Now().Add(-time.Hour))
		}, Denied, false},
		{"a new request, whose Certificate is not seen yet", func(r *cmapi.CertificateRequest, _ *cmapi.CertificateSpec) {
			r.OwnerReferences[0].Name = "other"
		}, Undecided, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := New(Options{Client: &Client{}, Log: slog.New(slog.DiscardHandler)})
			owner := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web", UID: "1", ResourceVersion: "1"}, Spec: spec}
			check(t, c.certificates.Add(owner.DeepCopy()))
			r := &cmapi.CertificateRequest{
				ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web-1", CreationTimestamp: metav1.Now(),
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))}},
				Spec: cmapi.CertificateRequestSpec{IssuerRef: spec.IssuerRef},
			}
			asks := *spec.DeepCopy()
			row.change(r, &asks)
			key, err := workload.NewKey(&asks)
			check(t, err)
			r.Spec.Request, err = workload.Request(&asks, key)
			check(t, err)
			asked, err := workload.Read(r)
			check(t, err)
			got, err := c.ByPolicy(func() *workload.Policy { return policy }).Approve(t.Context(), r, asked)
			check(t, err)
			if got.Verdict != row.want || (got.Again > 0) != row.again {
				t.Errorf("got %+v", got)
			}
			if got.Verdict == Denied && (strings.Contains(got.Message, "rule") || strings.Contains(got.Message, "web")) {
				t.Errorf("who is denied learns %q", got.Message)
			}
		})
	}
}

func TestNamesOfSigners(t *testing.T) {
	for name, want := range map[string]string{
		"issuers.cert-manager.io/n.ca":           "Issuer n/ca",
		"issuers.cert-manager.io/n.ca.v1":        "Issuer n/ca.v1",
		"clusterissuers.cert-manager.io/ca":      "ClusterIssuer /ca",
		"clusterissuers.cert-manager.io/n.ca":    "ClusterIssuer /n.ca",
		"issuers.cert-manager.io/ca":             "",
		"issuers.cert-manager.io/.ca":            "",
		"issuers.cert-manager.io/n.":             "",
		"clusterissuers.cert-manager.io/":        "",
		"issuers.example.org/n.ca":               "",
		"others.cert-manager.io/n.ca":            "",
		"kubernetes.io/kubelet-serving":          "",
		"issuers.cert-manager.io.evil.test/n.ca": "",
	} {
		ref, at, ok := signerOf(name)
		got := ""
		if ok {
			got = ref.Kind + " " + at.namespace + "/" + at.name
		}
		if got != want || ok && ref.Name != at.name {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestAChangedPolicyDecidesOnWhatWaits: at once, and not with the next look a minute
// later. The key of a SelfSigned certificate waits for that as well.
func TestAChangedPolicyDecidesOnWhatWaits(t *testing.T) {
	a := prepare(t)
	client, err := NewClient(a.config())
	check(t, err)
	var policy atomic.Pointer[workload.Policy]
	approves := func(yes bool) *workload.Policy {
		return &workload.Policy{Rules: []workload.Rule{{
			Name: "r", Namespaces: []string{"n"}, Issuers: []workload.IssuerPattern{{Group: "cert-manager.io", Kind: "Issuer", Name: "self"}}, Speaks: []string{workload.VarDNSNames},
			Approve: func(workload.Petition, *workload.Seen) (bool, error) { return yes, nil },
		}}}
	}
	policy.Store(approves(false))
	c := New(Options{Client: client, Workers: 2, ClusterNamespace: "n", Log: slog.New(slog.DiscardHandler)})
	c.Approver = c.ByPolicy(policy.Load)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { check(t, c.Run(ctx)) })
	defer running.Wait()
	defer stop()
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not so within 20 s; writes: %q", what, a.writes)
			}
		}
	}
	until("it waits for an approval", func() bool {
		var r cmapi.CertificateRequest
		ready := workload.RequestCondition(&r.Status, cmapi.CertificateRequestConditionReady)
		if a.read(cm+"certificaterequests/web-1", &r) {
			ready = workload.RequestCondition(&r.Status, cmapi.CertificateRequestConditionReady)
		}
		return ready != nil && ready.Message == messageWaits
	})
	policy.Store(approves(true))
	c.PolicyChanged()
	until("it is approved and issued", a.ready)
}
