package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// fakeClock is the clock of a machine of which somebody may set the wall clock.
type fakeClock struct {
	mu    sync.Mutex
	began time.Time
	set   time.Duration
}

func newClock(wall time.Time) *fakeClock {
	now := time.Now()
	return &fakeClock{began: now, set: wall.Sub(now)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.set)
}

func (c *fakeClock) Running() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.began)
}

// move sets the wall clock on by so much, and the machine's own by asleep.
func (c *fakeClock) move(by, asleep time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set += by
	c.began = c.began.Add(-asleep)
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// node is a control plane with an agent.
type node struct {
	*testpki.Cluster
	t     *testing.T
	clock *fakeClock
	log   *lines
	board *Board
	looks int
}

func newNode(t *testing.T, wall time.Time) *node {
	c := newClock(wall)
	return &node{Cluster: testpki.New(t, testpki.Single), t: t, clock: c, log: &lines{}, board: NewBoard(c.Now)}
}

func (n *node) root() string { return filepath.Join(n.Dir, "cp1") }

func (n *node) options() Options {
	return Options{
		Look: func(_ context.Context, at time.Time) (*apply.Nodes, *check.Result, error) {
			n.looks++
			nodes, err := apply.ReadNode("cp1", n.root())
			if err != nil {
				return nil, nil, err
			}
			return nodes, check.Run(nodes.Graph, check.Options{At: at}), nil
		},
		Renewal: &Renewal{Plan: plan}, Board: n.board, Log: slog.New(slog.NewTextHandler(n.log, nil)), Clock: n.clock,
	}
}

func plan(n *apply.Nodes, findings []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
	return renew.Plan(n.Graph, findings, targets, renew.Options{At: at, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
}

// unwatched is an agent to which the kernel gives no watches: those would keep a
// bubble's time from going on.
func unwatched(o Options) *Agent {
	a := New(o)
	looks := time.Duration(0)
	a.spent = func() time.Duration { looks++; return looks * time.Minute } // so dear that it looks seldom
	a.watcher = &watcher{log: o.Log, has: map[string]bool{}, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	close(a.watcher.ended)
	return a
}

// runFor lets an agent run for a time of its clock.
func runFor(t *testing.T, a *Agent, d time.Duration) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func (n *node) leaf(name string) *x509.Certificate {
	n.t.Helper()
	certs, err := trust.ParseCertificates(n.Read("cp1", "pki/"+name+".crt"))
	if err != nil {
		n.t.Fatal(err)
	}
	return certs[0]
}

func (n *node) errors() []string {
	n.t.Helper()
	nodes, err := apply.ReadNode("cp1", n.root())
	if err != nil {
		n.t.Fatal(err)
	}
	var all []string
	for _, f := range check.Run(nodes.Graph, check.Options{At: n.clock.Now()}).Findings {
		if f.Severity == check.Error {
			all = append(all, f.ID+" "+f.Path)
		}
	}
	return all
}

// decisions are those of an action, by id and reason.
func (n *node) decisions(a Action) []string {
	var all []string
	snapshot := n.board.Snapshot()
	for _, d := range snapshot.Decisions {
		if d.Action == a {
			all = append(all, d.ID+" "+d.Reason)
		}
	}
	slices.Sort(all)
	return all
}

// All that the control plane's own authorities sign and nobody else keeps.
var ofSingle = []string{
	"cp1/admin.conf", "cp1/apiserver", "cp1/apiserver-etcd-client", "cp1/apiserver-kubelet-client", "cp1/controller-manager.conf", "cp1/etcd-healthcheck-client",
	"cp1/etcd-peer", "cp1/etcd-server", "cp1/front-proxy-client", "cp1/kubelet.conf", "cp1/scheduler.conf", "cp1/super-admin.conf",
}

func TestInAYearEachCredentialIsMadeAnewAtItsMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, testpki.At)
		moments := map[string]time.Time{}
		nodes, err := apply.ReadNode("cp1", n.root())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range nodes.Graph.Credentials {
			moments["cp1/"+c.Name] = DefaultSpan.Moment(nodes.Graph.Material(c.Certificate).Leaf())
		}
		ca, sa := n.Read("cp1", "pki/ca.crt"), n.Read("cp1", "pki/sa.key")
		renewedAt := map[string]time.Time{}
		var broken []string
		n.board.Listen(func(c Change) {
			if d := c.Decision; d != nil && d.Action == Renewed {
				renewedAt[d.ID] = d.At
			}
			if v := c.Verified; v != nil && !v.Healthy {
				broken = append(broken, v.At.String())
			}
		})
		o := n.options()
		o.Interval = 7 * 24 * time.Hour // it wakes at each moment all the same
		runFor(t, unwatched(o), 340*24*time.Hour)
		var ids []string
		for id, at := range renewedAt {
			ids = append(ids, id)
			if late := at.Sub(moments[id]); late < 0 || late > 5*time.Second {
				t.Errorf("%s was made anew at %s, %s after its moment", id, at, late)
			}
		}
		slices.Sort(ids)
		if !slices.Equal(ids, ofSingle) {
			t.Errorf("made anew: %v\nwant %v", ids, ofSingle)
		}
		if len(broken) > 0 || len(n.errors()) > 0 {
			t.Errorf("not healthy at %v, at the end %v", broken, n.errors())
		}
		if !bytes.Equal(ca, n.Read("cp1", "pki/ca.crt")) || !bytes.Equal(sa, n.Read("cp1", "pki/sa.key")) {
			t.Error("what is no credential was touched")
		}
		if strings.Contains(n.log.String(), "PRIVATE") {
			t.Error("a key is in the log")
		}
	})
}

func TestMomentsAreSpreadAndDrawnOnce(t *testing.T) {
	const many = 2000
	begins := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	buckets := make([]int, 10)
	for i := range many {
		c := &x509.Certificate{Raw: []byte{byte(i), byte(i >> 8)}, NotBefore: begins, NotAfter: begins.AddDate(1, 0, 0)}
		at := DefaultSpan.Moment(c)
		if at != DefaultSpan.Moment(c) {
			t.Fatal("drawn anew")
		}
		part := float64(at.Sub(begins)) / float64(c.NotAfter.Sub(begins))
		if part < 0.7 || part > 0.9 {
			t.Fatalf("at %f of its life", part)
		}
		buckets[min(9, int((part-0.7)/0.02))]++
	}
	for i, n := range buckets {
		if n < many/10/2 || n > many/10*2 {
			t.Errorf("%d of %d in part %d", n, many, i)
		}
	}
	endless := &x509.Certificate{NotBefore: begins, NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	if at := DefaultSpan.Moment(endless); at.Year() < 7000 {
		t.Errorf("one without an end is due at %s", at)
	}
}

func TestSpansAreRead(t *testing.T) {
	for text, want := range map[string]Span{"70-90": {0.7, 0.9}, "80": {0.8, 0.8}, "66%-75%": {0.66, 0.75}} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-", "90-70", "0-50", "70-100", "NaN", "NaN-90", "70-90-95", "seventy"} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// dueAt is when everything of the test's cluster is due and nothing has ended.
var dueAt = testpki.Made.Add(340 * 24 * time.Hour)

func TestTheClockIsDoubted(t *testing.T) {
	tests := map[string]struct {
		wall time.Time
		does func(n *node) // once the agent has run for a minute
		// within tells in which time everything is made anew; 0: never.
		within time.Duration
	}{
		"a clock that is right":                                   {wall: dueAt, within: time.Minute},
		"a clock that is behind the node's certificates":          {wall: testpki.Made.AddDate(-3, 0, 0)},
		"a clock that somebody sets to where all is due":          {wall: testpki.At, does: func(n *node) { n.clock.move(untilDue, 0) }, within: 15 * time.Minute},
		"a clock that is set there, and back within five minutes": {wall: testpki.At, does: setAndBack},
		"a machine that slept until all is due":                   {wall: testpki.At, does: sleepUntilDue, within: 5 * time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, test.wall)
				before := n.Read("cp1", "pki/apiserver.crt")
				began := time.Now()
				var after time.Duration
				n.board.Listen(func(c Change) {
					if c.Decision != nil && c.Decision.Action == Renewed && after == 0 {
						after = time.Since(began)
					}
				})
				a := unwatched(n.options())
				if test.does != nil {
					time.AfterFunc(90*time.Second, func() { test.does(n) })
				}
				runFor(t, a, time.Hour)
				switch changed := !bytes.Equal(before, n.Read("cp1", "pki/apiserver.crt")); {
				case test.within == 0 && (changed || len(n.decisions(Renewed)) > 0):
					t.Errorf("made anew: %v", n.decisions(Renewed))
				case test.within > 0 && (!changed || len(n.decisions(Renewed)) != len(ofSingle) || after > test.within):
					t.Errorf("made anew after %s: %v\n%s", after, n.decisions(Renewed), n.log)
				case strings.Contains(name, "somebody") && after < jumpHolds:
					t.Errorf("made anew %s after the clock was set", after)
				}
				if strings.Contains(name, "behind") && !strings.Contains(n.log.String(), "cert-not-yet-valid") {
					t.Errorf("no finding says that the clock is behind:\n%s", n.log)
				}
			})
		})
	}
}

// untilDue is from testpki.At until all is due.
const untilDue = 339 * 24 * time.Hour

func setAndBack(n *node) {
	n.clock.move(untilDue, 0)
	time.AfterFunc(5*time.Minute, func() { n.clock.move(-untilDue, 0) })
}

// sleepUntilDue lets both clocks of the machine go on while the process stands still.
func sleepUntilDue(n *node) {
	n.clock.move(untilDue, untilDue)
}

func TestWhatWouldBreakALinkIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, dueAt)
		o := n.options()
		plans := 0
		o.Renewal.Plan = func(nodes *apply.Nodes, f []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
			items, err := plan(nodes, f, targets, at)
			for _, i := range items {
				if i.Name == "apiserver" {
					plans++
					i.Addresses = nil
				}
			}
			return items, err
		}
		before := n.Read("cp1", "pki/apiserver.crt")
		runFor(t, unwatched(o), time.Hour)
		if !bytes.Equal(before, n.Read("cp1", "pki/apiserver.crt")) || !slices.Equal(n.decisions(Refused), []string{"cp1/apiserver would-break"}) {
			t.Errorf("refused: %v", n.decisions(Refused))
		}
		if got := n.decisions(Renewed); len(got) != len(ofSingle)-1 {
			t.Errorf("the others: %v", got)
		}
		if plans > 20 || plans < 3 {
			t.Errorf("keys were made for it %d times in an hour", plans)
		}
	})
}

// unwilling certifies nothing until it has been asked a few times.
type unwilling struct {
	authority issue.Authority
	left      int
	asked     []time.Time
}

func (u *unwilling) Certify(_ context.Context, i *renew.Item, key crypto.Signer) ([]*x509.Certificate, error) {
	u.asked = append(u.asked, time.Now())
	if u.left--; u.left >= 0 {
		return nil, errors.New("the authority is asleep")
	}
	c, err := issue.Sign(i.Template(), key.Public(), u.authority)
	return []*x509.Certificate{c}, err
}

func TestWhatFailsIsTriedAgainAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, dueAt)
		u := &unwilling{authority: n.Authority("cp1", "front-proxy-ca"), left: 8}
		o := n.options()
		o.Renewal.Plan = withCertifier(u)
		runFor(t, unwatched(o), 2*time.Hour)
		if len(u.asked) < 9 || len(n.decisions(Renewed)) != 1 {
			t.Fatalf("asked %d times\n%s", len(u.asked), n.log)
		}
		for i := 2; i < 8; i++ {
			before, after := u.asked[i-1].Sub(u.asked[i-2]), u.asked[i].Sub(u.asked[i-1])
			if after < before && after < 5*time.Minute || after > 16*time.Minute {
				t.Errorf("pause %d is %s after one of %s", i, after, before)
			}
		}
		if got := strings.Count(n.log.String(), "the authority is asleep"); got != 1 {
			t.Errorf("said %d times", got)
		}
		if got := n.decisions(Failed); !slices.Equal(got, []string{"cp1/front-proxy-client error"}) {
			t.Errorf("failed: %v", got)
		}
	})
}

// withCertifier plans one credential alone, which u certifies.
func withCertifier(u renew.Certifier) func(*apply.Nodes, []check.Finding, []string, time.Time) ([]*renew.Item, error) {
	return func(nodes *apply.Nodes, f []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
		items, err := plan(nodes, f, targets, at)
		items = slices.DeleteFunc(items, func(i *renew.Item) bool { return i.Name != "front-proxy-client" })
		for _, i := range items {
			i.Certifier = u
		}
		return items, err
	}
}

func TestAtTheEndOfAnAuthorityNothingIsMadeInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, dueAt)
		n.Resign("cp1", "front-proxy-ca", func(c *x509.Certificate) { c.NotAfter = testpki.Made.Add(365 * 24 * time.Hour) })
		before := n.leaf("front-proxy-client")
		runFor(t, unwatched(n.options()), time.Hour)
		if got := n.decisions(Refused); !slices.Equal(got, []string{"cp1/front-proxy-client no-gain"}) {
			t.Errorf("refused: %v\n%s", got, n.log)
		}
		if !n.leaf("front-proxy-client").Equal(before) || len(n.decisions(Renewed)) != len(ofSingle)-1 {
			t.Errorf("made anew: %v", n.decisions(Renewed))
		}
	})
}

func TestOneAgentRenewsBelowARootAndTheNextGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newNode(t, testpki.At), &node{}
		*second = *first
		second.log, second.board = &lines{}, NewBoard(first.clock.Now)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- unwatched(first.options()).Run(ctx) }()
		time.Sleep(time.Minute)
		a := unwatched(second.options())
		a.Clock = newClock(dueAt) // all is due for the second alone
		a.renewer.clock = a.Clock
		both, end := context.WithCancel(t.Context())
		go func() { done <- a.Run(both) }()
		time.Sleep(3 * time.Minute)
		if got := second.decisions(Refused); len(got) != len(ofSingle) || !strings.HasSuffix(got[0], "locked") || len(second.decisions(Renewed)) > 0 {
			t.Errorf("beside another agent: %v, made anew %v", got, second.decisions(Renewed))
		}
		stop()
		time.Sleep(2 * time.Minute)
		if got := second.decisions(Renewed); len(got) != len(ofSingle) {
			t.Errorf("after the other's end: %v\n%s", got, second.log)
		}
		end()
		<-done
		<-done
	})
}

func TestAQuietMinuteProvesAsMuchAsIsCheap(t *testing.T) {
	for name, row := range map[string]struct {
		cost        time.Duration // of the processor, of one look
		least, most int           // looks in an hour in which nothing changes
	}{
		"one control plane is proved each minute": {40 * time.Millisecond, 58, 62},
		"a tenth of a second is cheap still":      {100 * time.Millisecond, 58, 62},
		"twice that is spread over two":           {200 * time.Millisecond, 29, 32},
		"what is dear is proved every tenth time": {5 * time.Second, 6, 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, testpki.At)
				time.Sleep(time.Hour) // what was written is old
				a := unwatched(n.options())
				a.spent = func() time.Duration { return time.Duration(n.looks) * row.cost }
				runFor(t, a, 60*time.Minute)
				if n.looks < row.least || n.looks > row.most {
					t.Errorf("all was proved %d times", n.looks)
				}
				if v := n.board.Snapshot().Verified; v == nil || n.clock.Now().Sub(v.At) > 2*time.Minute {
					t.Errorf("the verdict is of %v", v)
				}
			})
		})
	}
}

func TestTimeAloneChangesTheVerdictAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, testpki.Made.Add(365*24*time.Hour-90*time.Second))
		o := n.options()
		o.Renewal = nil
		ended := n.leaf("apiserver").NotAfter
		var saw time.Time
		n.board.Listen(func(c Change) {
			if v := c.Verified; saw.IsZero() && slices.ContainsFunc(v.Findings, func(f check.Finding) bool { return f.ID == "cert-expired" }) {
				saw = v.At
			}
		})
		runFor(t, unwatched(o), 10*time.Minute)
		if late := saw.Sub(ended); saw.IsZero() || late > DefaultInterval {
			t.Errorf("expired at %s, seen at %s", ended, saw)
		}
	})
}
