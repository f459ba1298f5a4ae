package controller

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/csr"
)

// entry is what is kept of every CertificateSigningRequest that there is; it
// is small, because there may be tens of thousands of old ones.
type entry struct {
	uid types.UID
	kept
	claim *claim // the key, where it has been certified
}

// place is where an item is.
type place int

const (
	inLine   place = iota
	inWork         // a worker has it
	asleep         // it waits for its time, or for its node
	behind         // a duplicate of it is before it
	isClosed       // nothing is to be done
)

// item is a request on which something is to be done.
type item struct {
	name string
	uid  types.UID
	// user and node are whose turns it takes.
	user, node string
	duplicate  [32]byte // alike for requests that ask for the same
	asked      asked
	made       time.Time
	seen       time.Time
	// body is the object as it was last seen; nil: it must be read again.
	body     *certificatesv1.CertificateSigningRequest
	place    place
	line     *line // from which it was taken
	again    bool  // something has changed since it was taken
	tries    int   // how often it stayed undecided
	failures int   // how often in a row it could not be done
	due      time.Time
	heap     *sleepers // in which it sleeps
	index    int       // there
	reserved *claim    // while it is in work
	reported bool      // an Event tells that it stays undecided
	reasons  string    // the last that were logged
}

// ledger knows every request, and who is next. It may be used by several
// goroutines.
type ledger struct {
	mu      sync.Mutex
	wake    *sync.Cond
	closed  bool
	paused  time.Time // nobody takes anything until then
	entries map[string]*entry
	items   map[string]*item
	// fresh are those that were made while we looked on; backlog are all that
	// were there before, or stayed undecided: they may be many.
	fresh, backlog *line
	taken          int
	// Those that stayed undecided, and those that could not be done.
	undecided, failing sleepers
	working            map[*item]struct{}
	groups             map[[32]byte][]*item
	byNode             map[string]map[*item]struct{}
	keys               keys
	bodies             int // how many bodies are held
}

// Limits of the ledger.
const (
	// maxBodies is how many requests are held whole; others are read again.
	maxBodies = 16384
	// freshTurns is how many fresh requests go before one of the backlog.
	freshTurns = 7
	// maxRetries bounds how many undecided requests are tried again for each
	// tick, so that old ones cost a bounded share of the time.
	maxRetries = 5
	tick       = 200 * time.Millisecond
	// Undecided requests are tried again after firstRetry, then after twice the
	// time, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// The same for what failed.
	firstFailure = 100 * time.Millisecond
	lastFailure  = 30 * time.Second
)

func newLedger(workers int) *ledger {
	// A quarter of the workers is left for others when one user is slow.
	perUser := workers - workers/4
	l := &ledger{
		entries: map[string]*entry{}, items: map[string]*item{},
		fresh: newLine(perUser), backlog: newLine(perUser),
		working: map[*item]struct{}{}, groups: map[[32]byte][]*item{}, byNode: map[string]map[*item]struct{}{}, keys: keys{},
	}
	l.wake = sync.NewCond(&l.mu)
	return l
}

// knows tells whether the ledger has seen this or something newer.
func (l *ledger) knows(o *certificatesv1.CertificateSigningRequest) bool {
	v := version(o.ResourceVersion)
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.entries[o.Name]
	return r != nil && r.uid == o.UID && v != 0 && v <= r.version
}

// observe takes note of an object that the API server has sent. What is older
// than what is known is ignored: it is the echo of what was before our own
// writes.
func (l *ledger) observe(s *sighting, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(s, true, now)
}

func (l *ledger) note(s *sighting, fresh bool, now time.Time) {
	r := l.entries[s.Name]
	if r != nil && r.uid != s.UID {
		l.forget(s.Name)
		r = nil
	}
	if r != nil && s.version != 0 && s.version <= r.version {
		return
	}
	if r == nil {
		r = &entry{uid: s.UID}
		l.entries[s.Name] = r
	}
	l.settle(r, s)
	it := l.items[s.Name]
	if s.body == nil {
		l.close(it)
		return
	}
	if it == nil {
		l.open(s, fresh, now)
		return
	}
	l.hold(it, s.body)
	switch {
	case it.place == inWork:
		it.again = true
	case r.state == csr.Approved && it.place != inLine:
		l.leaveGroup(it) // somebody has decided: nothing to wait for
		l.queue(it, l.fresh)
	}
}

// settle writes what was seen into a entry.
func (l *ledger) settle(r *entry, s *sighting) {
	r.kept = s.kept
	if r.claim == nil && s.asked.subject != nil && (s.state == csr.Approved || s.state == csr.Issued) {
		r.claim = l.keys.claim(s.asked.key, s.asked.commonName)
	}
}

// open begins to work on a request.
func (l *ledger) open(s *sighting, fresh bool, now time.Time) {
	spec := &s.body.Spec
	it := &item{
		name: s.Name, uid: s.UID, user: spec.Username, node: s.asked.commonName, asked: s.asked,
		made: s.body.CreationTimestamp.Time, seen: now,
		duplicate: digest(spec.Username, spec.SignerName, string(s.asked.subject), string(s.asked.key[:])),
	}
	l.items[it.name] = it
	l.hold(it, s.body)
	if s.state == csr.Pending {
		group := append(l.groups[it.duplicate], it)
		l.groups[it.duplicate] = group
		if len(group) > 1 {
			it.place = behind
			l.drop(it)
			return
		}
	}
	if fresh {
		l.queue(it, l.fresh)
	} else {
		l.queue(it, l.backlog)
	}
}

// digest is one of several texts, none of which runs into the next.
func digest(parts ...string) (sum [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	h.Sum(sum[:0])
	return sum
}

// hold keeps the body of an item where there is room for it.
func (l *ledger) hold(it *item, o *certificatesv1.CertificateSigningRequest) {
	if it.body == nil {
		if l.bodies >= maxBodies {
			return
		}
		l.bodies++
	}
	it.body = o
}

// drop lets go of the body of an item.
func (l *ledger) drop(it *item) {
	if it.body != nil {
		it.body = nil
		l.bodies--
	}
}

func (l *ledger) queue(it *item, line *line) {
	l.rouse(it)
	it.place = inLine
	line.push(it)
	l.wake.Signal()
}

// rouse takes an item from those that sleep.
func (l *ledger) rouse(it *item) {
	if it.heap != nil {
		heap.Remove(it.heap, it.index)
		it.heap = nil
	}
	if set := l.byNode[it.node]; set != nil {
		if delete(set, it); len(set) == 0 {
			delete(l.byNode, it.node)
		}
	}
}

// close ends the work on an item, which may be nil, and lets the next of its
// duplicates have its turn.
func (l *ledger) close(it *item) {
	if it == nil || it.place == isClosed {
		return
	}
	if it.place != inWork {
		l.rouse(it)
	}
	it.place = isClosed
	l.drop(it)
	if l.items[it.name] == it {
		delete(l.items, it.name)
	}
	l.leaveGroup(it)
}

// leaveGroup takes an item from the duplicates; where it was the first of them
// the next one is queued.
func (l *ledger) leaveGroup(it *item) {
	group := l.groups[it.duplicate]
	i := slices.Index(group, it)
	if i < 0 {
		return
	}
	group = slices.Delete(group, i, i+1)
	if len(group) == 0 {
		delete(l.groups, it.duplicate)
		return
	}
	l.groups[it.duplicate] = group
	if i == 0 {
		l.queue(group[0], l.backlog)
	}
}

// forget removes all that is known of a name.
func (l *ledger) forget(name string) {
	l.close(l.items[name])
	if r := l.entries[name]; r != nil {
		l.keys.release(r.claim)
		delete(l.entries, name)
	}
}

// remove takes note that an object is gone.
func (l *ledger) remove(name string, uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.entries[name]; r != nil && r.uid == uid {
		l.forget(name)
	}
}

// replace takes note of all that there is, after the watch was lost. The newest
// come first.
func (l *ledger) replace(all []*sighting, now time.Time) {
	slices.SortFunc(all, func(a, b *sighting) int { return cmp.Or(cmp.Compare(b.made, a.made), cmp.Compare(a.Name, b.Name)) })
	there := make(map[string]struct{}, len(all))
	for _, s := range all {
		there[s.Name] = struct{}{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.entries {
		if _, ok := there[name]; !ok {
			l.forget(name)
		}
	}
	for _, s := range all {
		if r := l.entries[s.Name]; r != nil && s.version < r.version {
			// Either the list is a little behind our own writes, which a conflict
			// will tell, or the API server went back to a backup.
			r.version = 0
		}
		l.note(s, false, now)
	}
}

// nodeChanged gives the requests that wait for a node another turn.
func (l *ledger) nodeChanged(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for it := range l.byNode[nodeUser+name] {
		l.queue(it, l.fresh)
	}
	for it := range l.working {
		it.again = it.again || it.node == nodeUser+name
	}
}

// reserve claims the key of an item for its name until the work on it ends, so
// that nobody else gets a certificate for that key meanwhile, and tells for
// which names it has been certified or is claimed.
func (l *ledger) reserve(it *item) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := l.keys.names(it.asked.key)
	if it.reserved == nil {
		it.reserved = l.keys.claim(it.asked.key, it.asked.commonName)
	}
	return names
}

// take waits for an item and returns it, with its body if that is held; false
// when the ledger is closed. [ledger.done] must be called for each item.
func (l *ledger) take() (*item, *certificatesv1.CertificateSigningRequest, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.closed {
			return nil, nil, false
		}
		if !time.Now().Before(l.paused) {
			if it := l.pop(); it != nil {
				it.place, it.again = inWork, false
				l.working[it] = struct{}{}
				return it, it.body, true
			}
		}
		l.wake.Wait()
	}
}

func (l *ledger) pop() *item {
	first, second := l.fresh, l.backlog
	if l.taken++; l.taken%(freshTurns+1) == 0 {
		first, second = second, first
	}
	if it := first.pop(); it != nil {
		return it
	}
	return second.pop()
}

// shut lets every [ledger.take] return.
func (l *ledger) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake.Broadcast()
}

// pause lets nobody take anything for a while: the API server does not answer.
func (l *ledger) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = time.Now().Add(d)
}

// outcome is what came of the work on an item.
type outcome int

const (
	finished  outcome = iota // nothing is left to do
	undecided                // to be tried again later, or when the node changes
	failed                   // to be tried again soon: it could not be done
)

// done ends the work on an item.
func (l *ledger) done(it *item, came outcome, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it.line.done(it)
	delete(l.working, it)
	l.keys.release(it.reserved)
	it.reserved = nil
	l.wake.Signal()
	if it.place == isClosed { // it has been deleted meanwhile
		return
	}
	if came == finished && !it.again {
		l.close(it)
		return
	}
	if came != failed {
		it.failures = 0
	}
	if it.again && came != failed {
		l.queue(it, l.fresh)
		return
	}
	var delay time.Duration
	if came == undecided {
		delay = backoff(firstRetry, lastRetry, it.tries)
		it.tries++
		l.drop(it)
	} else {
		delay = backoff(firstFailure, lastFailure, it.failures)
		it.failures++
	}
	l.sleep(it, now.Add(delay), came == undecided)
}

func (l *ledger) sleep(it *item, until time.Time, forNode bool) {
	it.place, it.due, it.heap = asleep, until, &l.failing
	if forNode {
		it.heap = &l.undecided
	}
	heap.Push(it.heap, it)
	if !forNode || it.node == "" {
		return
	}
	set := l.byNode[it.node]
	if set == nil {
		set = map[*item]struct{}{}
		l.byNode[it.node] = set
	}
	set[it] = struct{}{}
}

func backoff(first, last time.Duration, n int) time.Duration {
	if n > 20 {
		return last
	}
	return min(first<<n, last)
}

// wrote takes note of what the API server has answered to the worker that has
// an item: to a write, or to a read.
func (l *ledger) wrote(it *item, s *sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.entries[it.name]
	if r == nil || r.uid != s.UID || s.version <= r.version && s.version != 0 {
		return
	}
	l.settle(r, s)
	switch {
	case s.body == nil:
		it.again = false // what was seen meanwhile was on the way to this
	case it.place != isClosed:
		l.hold(it, s.body)
	}
}

// depths are how many items there are, by place.
type depths struct{ fresh, backlog, undecided, failing, known int }

func (l *ledger) depths() depths {
	l.mu.Lock()
	defer l.mu.Unlock()
	return depths{l.fresh.length, l.backlog.length, len(l.undecided), len(l.failing), len(l.entries)}
}

// run moves items whose time has come to the line, until the context ends.
func (l *ledger) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			l.tick(now)
		}
	}
}

func (l *ledger) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for it := l.failing.due(now); it != nil; it = l.failing.due(now) {
		l.queue(it, l.fresh)
	}
	for range maxRetries {
		it := l.undecided.due(now)
		if it == nil {
			break
		}
		l.queue(it, l.backlog)
	}
	l.wake.Broadcast() // a pause may be over
}

// sleepers is a heap by the time at which they are due.
type sleepers []*item

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s sleepers) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *sleepers) Push(x any) {
	it := x.(*item)
	it.index = len(*s)
	*s = append(*s, it)
}

func (s *sleepers) Pop() any {
	last := len(*s) - 1
	it := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return it
}

// due is the first one if its time has come, else nil.
func (s sleepers) due(now time.Time) *item {
	if len(s) == 0 || s[0].due.After(now) {
		return nil
	}
	return s[0]
}
