package controller

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// fixed is a source that never changes.
type fixed struct{ a issue.Authority }

func (f fixed) Authority() (issue.Authority, error) { return f.a, nil }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newFixed(t testing.TB) fixed {
	t.Helper()
	return fixed{namedAuthority(t, "kubernetes")}
}

// request is the PEM of a request of a node.
func request(t testing.TB, key crypto.Signer, node string, ips ...string) []byte {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// bootstrap is a request for a node's first certificate.
func bootstrap(t testing.TB, name, node string, key crypto.Signer) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request(t, key, node), SignerName: csr.KubeAPIServerClientKubeletSigner,
			Usages:   []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			Username: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers", "system:authenticated"},
		},
	}
}

// serving is a request for a node's serving certificate.
func serving(t testing.TB, name, node string, key crypto.Signer, ips ...string) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request(t, key, node, ips...), SignerName: csr.KubeletServingSigner,
			Usages:   []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
			Username: "system:node:" + node, Groups: []string{"system:nodes", "system:authenticated"},
		},
	}
}

func node(name string, ips ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "node-uid"}}
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	return n
}

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// bench is a loop at an API server in memory.
type bench struct {
	*api
	authority fixed
	log       *lines
	loop      *CSR
	stop      func()
}

// newBench makes a loop for all built-in signers; change may be nil.
func newBench(t testing.TB, a *api, change func(*CSROptions)) *bench {
	t.Helper()
	b := &bench{api: a, authority: newFixed(t), log: &lines{}}
	o := CSROptions{
		Client:  a.client(t),
		Approve: []string{csr.KubeAPIServerClientKubeletSigner, csr.KubeletServingSigner},
		Sources: map[string]signer.Source{},
		Policy:  csr.DefaultPolicy(),
		Cluster: func() (csr.Cluster, bool) { return csr.Cluster{}, true },
		Log:     slog.New(slog.NewJSONHandler(b.log, nil)), Metrics: NewMetrics(prometheus.NewRegistry()),
	}
	for _, name := range []string{csr.KubeAPIServerClientSigner, csr.KubeAPIServerClientKubeletSigner, csr.KubeletServingSigner, csr.LegacyUnknownSigner} {
		o.Sources[name] = b.authority
	}
	if change != nil {
		change(&o)
	}
	b.loop = NewCSR(o)
	return b
}

// start runs the loop until stop is called, which waits for its end.
func (b *bench) start(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.loop.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) state(name string) csr.State {
	state, _ := stateOf(b.get(name))
	return state
}

// within runs a test in a bubble in which time passes at once.
func within(t *testing.T, change func(*CSROptions), f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newAPI(), change)
		b.start(t)
		defer b.stop()
		f(t, b)
		if t.Failed() {
			t.Log(b.log)
		}
	})
}

func TestRequestIsApprovedAndSignedWithTwoWrites(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		for i := range 20 {
			b.create(bootstrap(t, fmt.Sprint("csr-", i), fmt.Sprint("n", i), newKey(t)))
		}
		waitFor(t, "all are issued", func() bool {
			for i := range 20 {
				if b.state(fmt.Sprint("csr-", i)) != csr.Issued {
					return false
				}
			}
			return true
		})
		for call, want := range map[string]int{
			"PUT certificatesigningrequests/approval": 20, "PUT certificatesigningrequests/status": 20,
			"GET certificatesigningrequests": 0, "POST subjectaccessreviews": 1,
		} {
			if got := b.count(call); got != want {
				t.Errorf("%d times %s, want %d", got, call, want)
			}
		}
		o := b.get("csr-7")
		block, _ := pem.Decode(o.Status.Certificate)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || c.CheckSignatureFrom(b.authority.a.Certificate) != nil || c.Subject.CommonName != "system:node:n7" {
			t.Errorf("the certificate is %v, %v", c, err)
		}
		if log := b.log.String(); strings.Count(log, `"verdict":"Approve"`) != 20 || !strings.Contains(log, `"serial":"`+trust.SerialText(c.SerialNumber)+`"`) {
			t.Errorf("the log is\n%s", log)
		}
	})
}

func TestDeniedRequesterLearnsNothing(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		o := bootstrap(t, "bad", "n1", newKey(t))
		o.Spec.Usages = append(o.Spec.Usages, certificatesv1.UsageServerAuth)
		b.create(o)
		waitFor(t, "it is denied", func() bool { return b.state("bad") == csr.Denied })
		if c := b.get("bad").Status.Conditions[0]; c.Message != deniedMessage || c.Reason != deniedReason {
			t.Errorf("the condition is %+v", c)
		}
		if !strings.Contains(b.log.String(), `"verdict":"Deny","reasons":"`) {
			t.Errorf("the log is\n%s", b.log)
		}
	})
}

func TestErrorsNeverDeny(t *testing.T) {
	tests := map[string]func(call, _ string) error{
		"no answer about rights": func(call, _ string) error {
			return when(call == "POST subjectaccessreviews", apierrors.NewInternalError(fmt.Errorf("x")))
		},
		"no approval": func(call, _ string) error {
			return when(strings.HasSuffix(call, "/approval"), apierrors.NewServiceUnavailable("x"))
		},
		"an approval is refused": func(call, _ string) error {
			return when(strings.HasSuffix(call, "/approval"), apierrors.NewForbidden(csrResource, "x", nil))
		},
		"no status": func(call, _ string) error {
			return when(strings.HasSuffix(call, "/status"), apierrors.NewTooManyRequests("x", 1))
		},
		"the connection is reset": func(call, _ string) error {
			return when(strings.HasPrefix(call, "PUT"), fmt.Errorf("connection reset by peer"))
		},
	}
	for name, refuse := range tests {
		t.Run(name, func(t *testing.T) {
			within(t, nil, func(t *testing.T, b *bench) {
				b.mu.Lock()
				b.refuse = refuse
				b.mu.Unlock()
				b.create(bootstrap(t, "one", "n1", newKey(t)))
				time.Sleep(time.Minute)
				if s := b.state("one"); s != csr.Pending && s != csr.Approved {
					t.Fatalf("it is %s", s)
				}
				b.mu.Lock()
				b.refuse = nil
				b.mu.Unlock()
				waitFor(t, "it is issued", func() bool { return b.state("one") == csr.Issued })
			})
		})
	}
}

func when(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

func TestWhoMayNotWaits(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		b.mu.Lock()
		b.allowed = false
		b.mu.Unlock()
		b.create(bootstrap(t, "one", "n1", newKey(t)))
		time.Sleep(time.Minute)
		if s := b.state("one"); s != csr.Pending {
			t.Fatalf("it is %s", s)
		}
		b.mu.Lock()
		b.allowed = true
		b.mu.Unlock()
		waitFor(t, "it is issued", func() bool { return b.state("one") == csr.Issued })
	})
}

func TestNodeThatComesIsSeenAtOnce(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		b.create(serving(t, "one", "n1", newKey(t), "10.0.0.1"))
		time.Sleep(20 * time.Second) // the next try by time alone is eleven seconds away
		b.setNode(node("n1", "10.0.0.1"))
		time.Sleep(100 * time.Millisecond)
		if s := b.state("one"); s != csr.Issued {
			t.Errorf("it is %s", s)
		}
	})
}

func TestAddressIsDeniedOnlyAfterGraceAndALiveRead(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		b.setNode(node("n1", "10.0.0.1"))
		b.create(serving(t, "one", "n1", newKey(t), "10.0.0.9"))
		time.Sleep(csr.Grace - time.Second)
		if s := b.state("one"); s != csr.Pending || b.count("GET nodes") != 0 {
			t.Fatalf("it is %s after %d live reads", s, b.count("GET nodes"))
		}
		waitFor(t, "it is denied", func() bool { return b.state("one") == csr.Denied })
		if b.count("GET nodes") == 0 {
			t.Error("the node was not read")
		}
	})
}

func TestApprovedByOthersIsSigned(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		good := bootstrap(t, "jane", "x", newKey(t))
		good.Spec.SignerName = csr.KubeAPIServerClientSigner
		never := bootstrap(t, "never", "x", newKey(t))
		never.Spec.SignerName = csr.KubeAPIServerClientSigner
		never.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}
		for _, o := range []*certificatesv1.CertificateSigningRequest{good, never} {
			o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
			b.create(o)
		}
		waitFor(t, "it is issued", func() bool { return b.state("jane") == csr.Issued })
		waitFor(t, "it has failed", func() bool { return b.state("never") == csr.Failed })
		c := b.get("never").Status.Conditions
		if c[len(c)-1].Reason != "SignerValidationFailure" {
			t.Errorf("the conditions are %+v", c)
		}
	})
}

func TestDuplicatesAreDecidedOneAfterTheOther(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		key := newKey(t)
		for i := range 50 {
			b.create(serving(t, fmt.Sprint("csr-", i), "n1", key, "10.0.0.1"))
		}
		time.Sleep(30 * time.Second)
		if d := b.loop.ledger.depths(); d.undecided != 1 || d.fresh+d.backlog != 0 {
			t.Errorf("the queue is %+v, want one that waits for all", d)
		}
		b.setNode(node("n1", "10.0.0.1"))
		waitFor(t, "all are issued", func() bool {
			for i := range 50 {
				if b.state(fmt.Sprint("csr-", i)) != csr.Issued {
					return false
				}
			}
			return true
		})
	})
}

func TestKeyOfAnotherNodeIsDenied(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		key := newKey(t)
		b.create(bootstrap(t, "first", "n1", key))
		waitFor(t, "it is issued", func() bool { return b.state("first") == csr.Issued })
		b.create(bootstrap(t, "second", "n2", key))
		waitFor(t, "it is denied", func() bool { return b.state("second") == csr.Denied })
		b.create(bootstrap(t, "again", "n1", key))
		waitFor(t, "its own key is good", func() bool { return b.state("again") == csr.Issued })
	})
}

func TestKeyOfTheAuthorityIsDenied(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		b.create(bootstrap(t, "one", "n1", b.authority.a.Key))
		waitFor(t, "it is denied", func() bool { return b.state("one") == csr.Denied })
	})
}

func TestApprovalIsNotReplayedOnANewRequestOfTheName(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		swapped := false
		b.mu.Lock()
		b.refuse = func(call, _ string) error {
			if strings.HasSuffix(call, "/approval") && !swapped {
				swapped = true
				b.delete("one")
				o := bootstrap(t, "one", "n2", newKey(t))
				o.UID = "another"
				o.Spec.Usages = append(o.Spec.Usages, certificatesv1.UsageServerAuth)
				o.CreationTimestamp = metav1.Now()
				b.put(o)
			}
			return nil
		}
		b.mu.Unlock()
		b.create(bootstrap(t, "one", "n1", newKey(t)))
		waitFor(t, "the other one is denied", func() bool { return b.state("one") == csr.Denied })
	})
}

func TestProcessThatWasKilledLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		first := newBench(t, a, nil)
		a.refuse = func(call, _ string) error {
			return when(strings.HasSuffix(call, "/status"), fmt.Errorf("connection reset by peer"))
		}
		first.start(t)
		for i := range 10 {
			a.create(bootstrap(t, fmt.Sprint("csr-", i), fmt.Sprint("n", i), newKey(t)))
		}
		waitFor(t, "one is approved and not signed", func() bool { return first.state("csr-3") == csr.Approved })
		first.stop()
		a.mu.Lock()
		a.refuse = nil
		a.mu.Unlock()
		second := newBench(t, a, nil)
		second.start(t)
		defer second.stop()
		waitFor(t, "all are issued", func() bool {
			for i := range 10 {
				if second.state(fmt.Sprint("csr-", i)) != csr.Issued {
					return false
				}
			}
			return true
		})
	})
}

func TestLostWatchLosesNothing(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		b.create(bootstrap(t, "before", "n0", newKey(t)))
		waitFor(t, "it is issued", func() bool { return b.state("before") == csr.Issued })
		for i := range 5 {
			mend := b.breakWatches()
			b.create(bootstrap(t, fmt.Sprint("csr-", i), fmt.Sprint("n", i), newKey(t)))
			time.Sleep(3 * time.Second)
			mend()
			waitFor(t, "it is issued", func() bool { return b.state(fmt.Sprint("csr-", i)) == csr.Issued })
		}
	})
}

func TestSignersAreSwitchedOneByOne(t *testing.T) {
	within(t, func(o *CSROptions) {
		o.Approve = []string{csr.KubeletServingSigner}
		o.Sources = nil
	}, func(t *testing.T, b *bench) {
		b.setNode(node("n1", "10.0.0.1"))
		b.create(serving(t, "serving", "n1", newKey(t), "10.0.0.1"))
		b.create(bootstrap(t, "client", "n2", newKey(t)))
		waitFor(t, "it is approved", func() bool { return b.state("serving") == csr.Approved })
		time.Sleep(time.Minute)
		if b.state("serving") != csr.Approved || b.state("client") != csr.Pending {
			t.Errorf("they are %s and %s", b.state("serving"), b.state("client"))
		}
		if got := b.count("PUT certificatesigningrequests/approval"); got != 1 {
			t.Errorf("%d approvals", got)
		}
	})
}
