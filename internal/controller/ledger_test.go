package controller

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/csr"
)

// wantAll wants what can be decided or signed.
func wantAll(_ string, s csr.State) bool { return s == csr.Pending || s == csr.Approved }

// at is an object at a version, with conditions.
func at(o *certificatesv1.CertificateSigningRequest, version int, kinds ...certificatesv1.RequestConditionType) *sighting {
	o = o.DeepCopy()
	o.ResourceVersion = strconv.Itoa(version)
	if o.UID == "" {
		o.UID = types.UID("uid-" + o.Name)
	}
	for _, k := range kinds {
		o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: k, Status: corev1.ConditionTrue})
	}
	return see(o, wantAll)
}

func issuedAt(o *certificatesv1.CertificateSigningRequest, version int) *sighting {
	o = o.DeepCopy()
	o.Status.Certificate = []byte("x")
	return at(o, version, certificatesv1.CertificateApproved)
}

// idle tells that nothing is to be done.
func (l *ledger) idle() bool {
	d := l.depths()
	return len(l.items) == 0 && d.fresh+d.backlog+d.undecided+d.failing == 0 && l.bodies == 0 && len(l.working) == 0 && len(l.groups) == 0
}

func TestEchoesOfOwnWritesMakeNoWork(t *testing.T) {
	o := bootstrap(t, "one", "n1", newKey(t))
	approved, issued := at(o, 2, certificatesv1.CertificateApproved), issuedAt(o, 3)
	// Each order in which answers (w) and events (e) of the two writes can come:
	// answers among themselves in order, and events too.
	for _, order := range []string{"wwee", "wewe", "weew", "ewwe", "ewew", "eeww"} {
		t.Run(order, func(t *testing.T) {
			l := newLedger(4)
			l.observe(at(o, 1), time.Now())
			it, _, _ := l.take()
			steps := map[rune][]*sighting{'w': {approved, issued}, 'e': {approved, issued}}
			for _, step := range order {
				s := *steps[step][0]
				steps[step] = steps[step][1:]
				if step == 'w' {
					l.wrote(it, &s)
				} else {
					l.observe(&s, time.Now())
				}
				if step == 'w' && s.state == csr.Issued {
					l.done(it, finished, time.Now())
				}
			}
			if !l.idle() {
				t.Errorf("left are %+v, items %v", l.depths(), l.items)
			}
		})
	}
}

func TestChangeDuringWorkIsNotLost(t *testing.T) {
	o := bootstrap(t, "one", "n1", newKey(t))
	t.Run("somebody approves what stays undecided", func(t *testing.T) {
		l := newLedger(4)
		l.observe(at(o, 1), time.Now())
		it, _, _ := l.take()
		l.observe(at(o, 2, certificatesv1.CertificateApproved), time.Now())
		l.done(it, undecided, time.Now())
		if _, body, _ := l.take(); len(body.Status.Conditions) != 1 {
			t.Error("the approval was not seen")
		}
	})
	t.Run("the node changes", func(t *testing.T) {
		l := newLedger(4)
		l.observe(at(o, 1), time.Now())
		it, _, _ := l.take()
		l.nodeChanged("n1")
		l.done(it, undecided, time.Now())
		if d := l.depths(); d.fresh != 1 {
			t.Errorf("the queue is %+v", d)
		}
	})
	t.Run("it is deleted and made again", func(t *testing.T) {
		l := newLedger(4)
		l.observe(at(o, 1), time.Now())
		it, _, _ := l.take()
		again := o.DeepCopy()
		again.UID = "another"
		l.observe(at(again, 3), time.Now())
		l.done(it, finished, time.Now())
		if it, _, _ := l.take(); it.uid != "another" {
			t.Errorf("next is %s", it.uid)
		}
	})
}

func TestListThatLacksARequestForgetsIt(t *testing.T) {
	l := newLedger(4)
	key := newKey(t)
	l.observe(issuedAt(bootstrap(t, "issued", "n1", key), 1), time.Now())
	l.observe(at(bootstrap(t, "pending", "n2", newKey(t)), 2), time.Now())
	l.replace(nil, time.Now())
	if it := l.pop(); it != nil { // lines let go of what is closed when its turn comes
		t.Errorf("%s is to be done", it.name)
	}
	if !l.idle() || len(l.entries) != 0 || len(l.keys) != 0 {
		t.Errorf("left are %d entries, %d keys, %+v", len(l.entries), len(l.keys), l.depths())
	}
}

func TestApprovedDuplicateWaitsForNobody(t *testing.T) {
	l := newLedger(4)
	key := newKey(t)
	first, second := bootstrap(t, "first", "n1", key), bootstrap(t, "second", "n1", key)
	l.observe(at(first, 1), time.Now())
	l.observe(at(second, 2), time.Now())
	it, _, _ := l.take()
	l.done(it, undecided, time.Now())
	l.observe(at(second, 3, certificatesv1.CertificateApproved), time.Now())
	if it, _, _ := l.take(); it.name != "second" {
		t.Errorf("next is %s", it.name)
	}
	l.remove("first", "uid-first")
	l.remove("second", "uid-second")
	if len(l.groups) != 0 || len(l.items) != 0 || l.bodies != 0 {
		t.Errorf("left are %d groups, %d items, %d bodies", len(l.groups), len(l.items), l.bodies)
	}
}

func TestNewRequestGoesBeforeManyOldOnes(t *testing.T) {
	l := newLedger(4)
	var old []*sighting
	for i := range 20_000 {
		o := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("old-", i)}}
		o.Spec.Username = fmt.Sprint("user-", i)
		o.Spec.Request = []byte(fmt.Sprint(i))
		old = append(old, at(o, i+1))
	}
	l.replace(old, time.Now())
	if l.bodies > maxBodies {
		t.Errorf("%d bodies are held", l.bodies)
	}
	l.observe(at(bootstrap(t, "new", "n1", newKey(t)), 30_000), time.Now())
	var first []string
	for range 2 {
		it, _, _ := l.take()
		first = append(first, it.name)
	}
	if !slices.Contains(first, "new") {
		t.Errorf("the first are %v", first)
	}
}

func TestOldUndecidedOnesCostABoundedShare(t *testing.T) {
	l := newLedger(4)
	now := time.Now()
	for i := range 1000 {
		o := bootstrap(t, fmt.Sprint("csr-", i), fmt.Sprint("n", i), newKey(t))
		l.observe(at(o, i+1), now)
		it, _, _ := l.take()
		l.done(it, undecided, now)
	}
	l.tick(now.Add(time.Hour))
	if d := l.depths(); d.backlog != maxRetries || d.undecided != 1000-maxRetries {
		t.Errorf("after one tick the queue is %+v", d)
	}
	// What failed is not held up by them.
	l.observe(at(bootstrap(t, "failed", "failed", newKey(t)), 5000), now)
	it, _, _ := l.take()
	for it.name != "failed" {
		l.done(it, undecided, now)
		it, _, _ = l.take()
	}
	l.done(it, failed, now)
	l.tick(now.Add(time.Hour))
	if d := l.depths(); d.fresh != 1 {
		t.Errorf("what failed waits: %+v", d)
	}
}

// TestOldRequestCostsFewBytes measures what the ledger keeps of requests that
// have been issued: the larger ones, for their keys are remembered.
func TestOldRequestCostsFewBytes(t *testing.T) {
	const n, limit = 50_000, 700
	l := newLedger(4)
	o := bootstrap(t, "", "n1", newKey(t))
	a := readAsked(o.Spec.Request)
	before := heapInUse()
	for i := range n {
		s := &sighting{asked: a}
		s.Name, s.UID = fmt.Sprintf("node-csr-%040d", i), types.UID(fmt.Sprintf("%036d", i))
		s.state, s.version = csr.Issued, uint64(i+1)
		s.asked.key = digest(s.Name)
		s.asked.commonName = fmt.Sprint("system:node:node-", i)
		l.observe(s, time.Now())
	}
	each := (heapInUse() - before) / n
	runtime.KeepAlive(l)
	t.Logf("%d bytes each", each)
	if each > limit {
		t.Errorf("each takes %d bytes, want at most %d", each, limit)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestKeysAreForgottenWithTheirLastRequest(t *testing.T) {
	k := keys{}
	a, b, again := k.claim([32]byte{1}, "a"), k.claim([32]byte{1}, "b"), k.claim([32]byte{1}, "a")
	if got := k.names([32]byte{1}); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"a", "b"}) {
		t.Errorf("the names are %v", got)
	}
	k.release(a)
	k.release(b)
	if got := k.names([32]byte{1}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the names are %v", got)
	}
	k.release(again)
	k.release(nil)
	if len(k) != 0 {
		t.Errorf("left are %v", k)
	}
}
