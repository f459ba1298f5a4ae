package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// Board is where the agent's loops write what they know, and what metrics, health
// and the status page read. What is written is never changed after; nothing secret
// is in it. It is safe for concurrent use.
type Board struct {
	now     func() time.Time
	started time.Time

	mu         sync.Mutex
	stuckAfter time.Duration
	progress   time.Time
	verified   *Verified
	failure    *Failure
	due        []Due
	decisions  []Decision // the newest last
	counts     map[Count]uint64
	errors     map[string]uint64 // of reading files, by the code of a Fault
	holders    []Holder
	listeners  []func(Change)
}

// Verified is one reading of the files, and how it was judged.
type Verified struct {
	report.Verification // At, Healthy, Links, Findings
	Took                time.Duration
	// Certificates are those of all places that were read, in the order of places.
	Certificates []brief.Certificate
	// Faults are places where certificates should be and none could be read.
	Faults []Fault
	// Files is how many files and kubeconfigs were read, or would be if they were
	// there.
	Files int
}

// Fault is a place that could not be read.
type Fault struct {
	Place trust.Place
	// Code is a word for machines: permission_denied, read_failed, bad_pem.
	Code string
}

// Failure tells that the files could not be looked at at all.
type Failure struct {
	At  time.Time
	Err error
}

// Due is a credential that will be made anew.
type Due struct {
	ID   string // of the renew.Item: cp1/apiserver
	Node string
	Path string // of its certificate
	At   time.Time
}

// Action is what the agent did, or did not do.
type Action string

// The actions.
const (
	Renewed   Action = "renewed"   // a credential was made anew, and stands
	Refused   Action = "refused"   // it is due, and kubepki will not make it anew as things are
	Failed    Action = "failed"    // it was tried, and nothing was changed; it is tried again
	Restarted Action = "restarted" // a component took up what was written
	Stuck     Action = "stuck"     // a component was restarted and did not come back, or could not be
)

// Decision is one thing that the agent did or refused to do.
type Decision struct {
	At     time.Time
	Action Action
	ID     string // of the renew.Item, or of the component: cp1/kube-apiserver
	Node   string
	Path   string // of the certificate; "": of a component
	// Reason is a word for machines, out of a fixed set: due, not-signed, ca-absent,
	// would-break, locked … Text is a sentence for people without anything secret.
	Reason, Text string
	NotAfter     time.Time // of what was made anew; zero: nothing was
}

// Count is of which decisions a number is.
type Count struct {
	Action Action
	Reason string
}

// Holder holds certificates beside those of files: those of a cluster's objects. All
// methods are safe for concurrent use.
type Holder interface {
	// Each calls yield with each certificate in a stable order until it returns false.
	Each(yield func(brief.Certificate) bool)
	// Sources are where they are from.
	Sources() []Source
}

// Source is one kind of objects, and how reading it goes.
type Source struct {
	Kind    string // file, kube-secret, kube-configmap or kube-cabundle
	Name    string // such as secrets/kubernetes.io/tls
	Read    bool   // read as a whole once
	Up      bool   // read, and followed without an error now
	Reason  string // why it is not up, for people
	Bundles int    // files or objects with certificates
	// Errors counts by a word for machines, Resyncs how often it was read anew.
	Errors  map[string]uint64
	Resyncs uint64
	Faults  []Fault // objects that hold what does not parse
	Left    int     // certificates that were not kept, for there are too many
}

// Change is what listeners are told.
type Change struct {
	Verified *Verified // nil: another change
	Decision *Decision // nil: another change
}

// What of a Board is bounded.
const (
	keptDecisions = 100
	keptReasons   = 64 // kinds of counts; further ones count as "other"
)

// NewBoard returns one that knows nothing yet. now is the clock; nil: time.Now.
func NewBoard(now func() time.Time) *Board {
	if now == nil {
		now = time.Now
	}
	t := now()
	// All are there from the start on, so that the first of a kind is seen to be one more.
	errors := map[string]uint64{"permission_denied": 0, "read_failed": 0, "bad_pem": 0, unreadCode: 0}
	return &Board{now: now, started: t, progress: t, stuckAfter: StuckAfter, counts: map[Count]uint64{}, errors: errors}
}

// unreadCode is for all that keeps the files from being looked at.
const unreadCode = "walk_error"

// Progress notes that the loop goes round. It must be called more often than
// [StuckAfter].
func (b *Board) Progress() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = b.now()
}

// Verified notes what the files hold now, in the place of what was noted before.
func (b *Board) Verified(v *Verified) {
	b.mu.Lock()
	b.verified, b.failure, b.progress = v, nil, b.now()
	for _, f := range v.Faults {
		b.errors[f.Code]++
	}
	told := b.listeners
	b.mu.Unlock()
	for _, tell := range told {
		tell(Change{Verified: v})
	}
}

// Unread notes that the files could not be looked at. What was seen last stays.
func (b *Board) Unread(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failure, b.progress = &Failure{At: b.now(), Err: err}, b.now()
	b.errors[unreadCode]++
}

// Schedule notes all that will be made anew, in the place of what was noted before.
func (b *Board) Schedule(due []Due) {
	due = slices.Clone(due)
	slices.SortStableFunc(due, func(x, y Due) int { return x.At.Compare(y.At) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = due
}

// Decided notes one decision.
func (b *Board) Decided(d Decision) {
	if d.At.IsZero() {
		d.At = b.now()
	}
	b.mu.Lock()
	kind := Count{d.Action, d.Reason}
	if _, known := b.counts[kind]; !known && len(b.counts) >= keptReasons {
		kind.Reason = "other"
	}
	b.counts[kind]++
	kept := b.decisions[max(0, len(b.decisions)-keptDecisions+1):]
	b.decisions = append(slices.Clone(kept), d)
	told := b.listeners
	b.mu.Unlock()
	for _, tell := range told {
		tell(Change{Decision: &d})
	}
}

// Include adds what holds certificates, before anything is shown.
func (b *Board) Include(h Holder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holders = append(b.holders, h)
}

// Listen has every change told, on the goroutine that makes it; tell must not wait.
func (b *Board) Listen(tell func(Change)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners = append(slices.Clone(b.listeners), tell)
}

// Snapshot is what a Board knows at one moment.
type Snapshot struct {
	At, Started, Progress time.Time
	Verified              *Verified  // nil: not yet
	Failure               *Failure   // nil: the last reading went well
	Due                   []Due      // the next first
	Decisions             []Decision // the newest last
	Counts                map[Count]uint64
	errors                map[string]uint64
	holders               []Holder
	stuckAfter            time.Duration
}

// Snapshot returns what is known now.
func (b *Board) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Snapshot{
		At: b.now(), Started: b.started, Progress: b.progress, Verified: b.verified, Failure: b.failure, Due: b.due, Decisions: b.decisions,
		Counts: maps.Clone(b.counts), errors: maps.Clone(b.errors), holders: b.holders, stuckAfter: b.stuckAfter,
	}
}

// Each calls yield with every certificate, those of files first, until it returns
// false.
func (s *Snapshot) Each(yield func(brief.Certificate) bool) {
	more := true
	if s.Verified != nil {
		for _, c := range s.Verified.Certificates {
			if !yield(c) {
				return
			}
		}
	}
	for _, h := range s.holders {
		if h.Each(func(c brief.Certificate) bool { more = yield(c); return more }); !more {
			return
		}
	}
}

// fileKind is the kind of the source that is the files of nodes.
const fileKind = "file"

// Sources are where the certificates are from, the files first.
func (s *Snapshot) Sources() []Source {
	var all []Source
	if s.Verified != nil || s.Failure != nil {
		f := Source{Kind: fileKind, Name: "nodes", Read: s.Verified != nil, Up: s.Failure == nil, Errors: s.errors}
		if s.Verified != nil {
			f.Bundles, f.Faults = s.Verified.Files, s.Verified.Faults
		}
		if s.Failure != nil {
			f.Reason = s.Failure.Err.Error()
		}
		all = append(all, f)
	}
	for _, h := range s.holders {
		all = append(all, h.Sources()...)
	}
	return all
}

// NewVerified keeps of a graph and of what was found in it what is shown: neither
// the graph nor a parsed certificate is held by the result.
func NewVerified(g *trust.Graph, r *check.Result, at time.Time, took time.Duration) *Verified {
	v := &Verified{Verification: report.NewVerification(g, r, at), Took: took}
	places := make([]trust.Place, 0, len(g.Materials))
	files := map[trust.Place]bool{}
	for p := range g.Materials {
		places = append(places, p)
		if !p.InAPI() {
			files[p.File()] = true
		}
	}
	v.Files = len(files)
	slices.SortFunc(places, trust.Place.Compare)
	for _, p := range places {
		if p.InAPI() {
			continue // a Holder has those
		}
		m := g.Materials[p]
		if code := faultCode(m.State); code != "" {
			v.Faults = append(v.Faults, Fault{p, code})
		}
		for i, c := range m.Certificates {
			v.Certificates = append(v.Certificates, brief.New(p, i, c))
		}
	}
	return v
}

// faultCode is the word for why what is at a place could not be read, as
// x509-certificate-exporter has them (pkg/cert/reason.go); "": it could, or nothing
// is there, which findings speak of.
func faultCode(s trust.State) string {
	switch s {
	case trust.Denied:
		return "permission_denied"
	case trust.Unreadable:
		return "read_failed"
	case trust.Malformed:
		return "bad_pem"
	}
	return ""
}
