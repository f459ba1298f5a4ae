package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Renewal says how an agent makes anew what is due. It never touches an authority.
type Renewal struct {
	Span Span // zero: [DefaultSpan]
	// Plan returns an item for each target, as [renew.Plan] does.
	Plan func(n *apply.Nodes, findings []check.Finding, targets []string, at time.Time) ([]*renew.Item, error)
	// Turn lets this node go on when no other does; nil: all at once.
	Turn Turn
	// Restart has the components take up the files that were written, node by node, and
	// proves it; it stops at the first that does not come back. It is called again later
	// then, with the ids of those that it did before, which it leaves alone, and returns
	// the ids of those that it did. nil: they do by themselves, or somebody else sees to it.
	Restart func(ctx context.Context, n *apply.Nodes, changed []trust.Place, done []string) ([]string, error)
	// Tidy removes what waited for certificates that are in place now; nil: nothing waits.
	// It is called at the start and after each renewal, with the nodes as they are.
	Tidy func(n *apply.Nodes) error
	// Keep is how many of its own backups each node keeps; 0: all.
	Keep int
}

// The reasons of decisions, for machines.
const (
	ReasonDue        = "due"
	ReasonClock      = "clock"       // the clock was set, or is wrong
	ReasonLocked     = "locked"      // another process makes anew below this root
	ReasonNoGain     = "no-gain"     // its authority ends with it
	ReasonRefused    = "refused"     // it cannot be planned: no authority's key, a distribution's own
	ReasonWouldBreak = "would-break" // a link that holds would not
	ReasonTurn       = "turn"        // another node's turn
	ReasonError      = "error"       // making or writing failed
	ReasonWaiting    = "waiting"     // who signs has been asked, and has not signed yet
	ReasonRestart    = "restart"     // what was written was not taken up
)

// WaitingError tells that a certificate was asked for elsewhere and is not there yet. It
// is asked for again later.
type WaitingError struct{ Why string }

// Error tells what it waits for.
func (e *WaitingError) Error() string { return e.Why }

// renewer is the part of an agent that writes.
type renewer struct {
	Renewal
	look    func(ctx context.Context, at time.Time) (*apply.Nodes, *check.Result, error)
	board   *Board
	log     *slog.Logger
	clock   Clock
	locks   locks
	tries   map[string]*try   // by id of what is due
	decided map[string]string // by id: what was said last
	mended  bool
	stuck   *stuck // what was written and is not taken up; nil: nothing
	waits   bool   // for the clock, the lock or its turn: to be looked at again each round
}

// try is what is remembered of failures.
type try struct {
	backoff wait.Backoff
	after   time.Duration // not before, on the machine's clock
}

// retries are the pauses after failures: from five seconds to ten minutes, with some
// chance, so that machines which failed together do not come back together.
func retries() wait.Backoff {
	return wait.Backoff{Duration: 5 * time.Second, Factor: 2, Jitter: 0.3, Steps: 30, Cap: 10 * time.Minute}
}

func newRenewer(o Options) *renewer {
	r := &renewer{Renewal: *o.Renewal, look: o.Look, board: o.Board, log: o.Log, clock: o.Clock, tries: map[string]*try{}, decided: map[string]string{}}
	if r.Span == (Span{}) {
		r.Span = DefaultSpan
	}
	return r
}

func (r *renewer) close() { r.locks.release() }

// dueItem is a credential whose moment has come.
type dueItem struct {
	Due
	ends time.Time
}

// round makes anew what is due. It returns when the next falls due or is tried again,
// and whether anything was written.
func (r *renewer) round(ctx context.Context, n *apply.Nodes, s *steady) (next time.Time, did bool) {
	schedule, due := r.due(n)
	r.board.Schedule(schedule)
	if !r.mended {
		r.mended = r.mend(n)
	}
	next, r.waits = r.nextMoment(schedule), false
	r.forget(schedule)
	due = slices.DeleteFunc(due, func(d dueItem) bool {
		t := r.tries[d.ID]
		if t != nil && t.after > s.running {
			next = earlier(next, r.clock.Now().Add(t.after-s.running))
			return true
		}
		return false
	})
	if r.stuck != nil && r.stuck.after > s.running {
		next = earlier(next, r.clock.Now().Add(r.stuck.after-s.running))
	}
	if len(due) == 0 && (r.stuck == nil || r.stuck.after > s.running) {
		return next, false
	}
	if why, text := r.mayNot(n, s); why != "" {
		r.waits = true
		for _, d := range due {
			r.refuse(d.Due, why, text)
		}
		return next, false
	}
	work := func(ctx context.Context) error {
		var err error
		did, err = r.work(ctx)
		return err
	}
	var err error
	if r.Turn != nil {
		err = r.Turn.Take(ctx, soonest(due), work)
	} else {
		err = work(ctx)
	}
	var waiting *NotYetError
	switch {
	case ctx.Err() != nil:
	case errors.As(err, &waiting):
		r.waits = true
		for _, d := range due {
			r.refuse(d.Due, ReasonTurn, waiting.Error())
		}
		next = earlier(next, r.clock.Now().Add(waiting.Again))
	case err != nil:
		for _, d := range due {
			r.failed(d.Due, ReasonError, err)
			next = earlier(next, r.clock.Now().Add(r.tries[d.ID].after-r.clock.Running()))
		}
	}
	return next, did
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// soonest is when the first of some ends; zero where there is none.
func soonest(due []dueItem) time.Time {
	if len(due) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(due, func(a, b dueItem) int { return a.ends.Compare(b.ends) }).ends
}

// due lists what will be made anew, and of that what is due now.
func (r *renewer) due(n *apply.Nodes) (schedule []Due, due []dueItem) {
	now := r.clock.Now()
	for _, cred := range n.Graph.Credentials {
		leaf := n.Graph.Material(cred.Certificate).Leaf()
		if leaf == nil || othersKeep(n, cred) {
			continue
		}
		d := Due{ID: idOf(cred), Node: cred.Node, Path: cred.Certificate.Path, At: r.Span.Moment(leaf)}
		if slices.ContainsFunc(schedule, func(o Due) bool { return o.Node == d.Node && o.Path == d.Path }) {
			continue // one certificate in two roles
		}
		schedule = append(schedule, d)
		if !d.At.After(now) {
			due = append(due, dueItem{d, leaf.NotAfter})
		}
	}
	return schedule, due
}

func idOf(cred *trust.Credential) string {
	if cred.Node == "" {
		return cred.Name
	}
	return cred.Node + "/" + cred.Name
}

// othersKeep tells of a credential that the agent leaves to somebody else: the kubelet
// rotates what stands in its folder, and people ask for their kubeconfigs.
func othersKeep(n *apply.Nodes, cred *trust.Credential) bool {
	i := slices.IndexFunc(n.Nodes, func(o trust.Node) bool { return o.Name == cred.Node })
	if i < 0 || n.Nodes[i].Layout == layout.LayoutUsers || strings.HasPrefix(cred.Certificate.Path, catalog.KubernetesDir+"/"+catalog.UsersDir+"/") {
		return true
	}
	if !strings.HasPrefix(cred.Certificate.Path, catalog.KubeletDir+"/pki/") {
		return false
	}
	for _, c := range n.Nodes[i].Components {
		if rotates, set := c.Flag("rotate-certificates"); c.Name == catalog.Kubelet && set && rotates == "false" {
			return false
		}
	}
	return true
}

func (r *renewer) nextMoment(schedule []Due) (next time.Time) {
	now := r.clock.Now()
	for _, d := range schedule {
		if d.At.After(now) {
			next = earlier(next, d.At)
		}
	}
	return next
}

// forget drops what is remembered of credentials that are not due any more.
func (r *renewer) forget(schedule []Due) {
	now := r.clock.Now()
	due := func(id string) bool {
		return slices.ContainsFunc(schedule, func(d Due) bool { return d.ID == id && !d.At.After(now) })
	}
	maps.DeleteFunc(r.decided, func(id, _ string) bool { return !due(id) })
	maps.DeleteFunc(r.tries, func(id string, _ *try) bool { return !due(id) })
}

// mayNot tells why nothing at all is made anew now.
func (r *renewer) mayNot(n *apply.Nodes, s *steady) (reason, text string) {
	if !s.trusted() {
		return ReasonClock, fmt.Sprintf("the clock of this machine was set: nothing is made anew for another %s", (s.holds - s.running).Round(time.Second))
	}
	if at, begins, found := behind(n.Graph, r.clock.Now()); found {
		return ReasonClock, fmt.Sprintf("%s begins at %s, which is later than now by the clock of this machine: one of the clocks is wrong", at, begins.UTC().Format(time.RFC3339))
	}
	for _, dir := range n.Dirs {
		if err := r.locks.hold(dir); err != nil {
			return ReasonLocked, err.Error()
		}
	}
	return "", ""
}

// mend finishes or takes back what an earlier process was killed at, once.
func (r *renewer) mend(n *apply.Nodes) bool {
	for _, dir := range n.Dirs {
		if r.locks.hold(dir) != nil {
			return false // its process may be at work
		}
		finished, removed, err := apply.Mend(dir)
		switch {
		case err != nil:
			r.log.Warn("what an interrupted run left could not be looked for", append([]any{"root", dir, "error", err.Error()}, hint(err)...)...)
			return true // whoever writes will say so
		case finished+removed > 0:
			r.log.Info("mended what an interrupted run left", "root", dir, "finished", finished, "removed", removed)
		}
	}
	if r.Tidy != nil {
		if err := r.Tidy(n); err != nil {
			r.log.Warn("keys whose certificates are in place could not be removed from where they waited", append([]any{"error", err.Error()}, hint(err)...)...)
		}
	}
	return true
}

// work looks again, now that it is this node's turn, and makes anew what is due.
func (r *renewer) work(ctx context.Context) (did bool, err error) {
	now := r.clock.Now()
	n, result, err := r.look(ctx, now)
	if err != nil {
		return false, err
	}
	_, due := r.due(n)
	items := r.plan(n, result, due, now)
	var made *apply.Renewal
	if len(items) > 0 {
		if made, err = r.make(ctx, n, result, items, now); err != nil {
			return false, err
		}
	}
	if made != nil {
		made.By = apply.ByAgent
		if err := cmp.Or(ctx.Err(), made.Write(n)); err != nil {
			return false, err
		}
		for _, i := range made.Items {
			r.renewed(i)
		}
		r.prune(n)
		r.mended = r.Tidy == nil // once more, with what stands there then
	}
	return r.restart(ctx, n, made) || made != nil, nil
}

// prune removes the oldest of the agent's own backups. What fails is tried after the
// next renewal.
func (r *renewer) prune(n *apply.Nodes) {
	for _, dir := range n.Dirs {
		if r.Keep == 0 {
			return
		}
		removed, err := apply.Prune(dir, r.Keep)
		if err != nil {
			r.log.Warn("old backups could not be removed", append([]any{"root", dir, "error", err.Error()}, hint(err)...)...)
		}
		if removed > 0 {
			r.log.Info("removed old backups of this agent", "root", dir, "removed", removed, "kept", r.Keep)
		}
	}
}

// plan returns the items of what is due. What cannot be planned, or would not live
// longer, is refused by itself.
func (r *renewer) plan(n *apply.Nodes, result *check.Result, due []dueItem, now time.Time) []*renew.Item {
	var items []*renew.Item
	for _, d := range due {
		if t := r.tries[d.ID]; t != nil && t.after > r.clock.Running() {
			continue
		}
		found, err := r.Plan(n, result.Findings, []string{d.Node + ":" + d.Path}, now)
		if err != nil {
			r.refuse(d.Due, ReasonRefused, err.Error(), hint(err)...)
			continue
		}
		for _, i := range found {
			switch {
			case i.Kind == renew.Authority || slices.ContainsFunc(items, func(o *renew.Item) bool { return o.Certificate == i.Certificate }):
			case !gains(i, now):
				r.refuse(d.Due, ReasonNoGain, fmt.Sprintf("made anew it would end at %s, for its authority %s ends then: that is what is to be renewed", i.NotAfter.Format(time.RFC3339), i.Issuer))
			default:
				items = append(items, i)
			}
		}
	}
	return items
}

// gains tells whether it is worth while: at the end of an authority's life each new
// certificate would be due again at once, for ever.
func gains(i *renew.Item, now time.Time) bool {
	if i.Old == nil {
		return true
	}
	span := i.Old.NotAfter.Sub(i.Old.NotBefore)
	whole := i.NotAfter.Sub(i.NotBefore) >= span
	return i.NotAfter.After(now) && (whole || i.NotAfter.Sub(i.Old.NotAfter) > span/20)
}

// make makes the items in memory, and leaves out what would break a link.
func (r *renewer) make(ctx context.Context, n *apply.Nodes, result *check.Result, items []*renew.Item, now time.Time) (*apply.Renewal, error) {
	made, err := apply.Make(ctx, n, items, result, now)
	if err == nil && len(made.Breaks) == 0 {
		return made, nil
	}
	if len(items) == 1 {
		r.holds(items[0], made, err)
		return nil, ctx.Err()
	}
	// Each by itself, so that one that is wrong does not keep the others.
	var good []*renew.Item
	for _, i := range items {
		one, err := apply.Make(ctx, n, []*renew.Item{i}, result, now)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if r.holds(i, one, err) {
			good = append(good, i)
		}
	}
	if len(good) == 0 {
		return nil, nil
	}
	made, err = apply.Make(ctx, n, good, result, now)
	if err == nil && len(made.Breaks) > 0 {
		return nil, fmt.Errorf("together they would break a link: %s: %s", made.Breaks[0].ID, made.Breaks[0].Cause)
	}
	return made, err
}

// holds tells whether one item could be made and breaks nothing; it notes why not.
func (r *renewer) holds(i *renew.Item, made *apply.Renewal, err error) bool {
	d := Due{ID: i.ID(), Node: i.Node, Path: i.Certificate.Path}
	var waits *WaitingError
	switch {
	case errors.As(err, &waits):
		r.later(i.ID())
		r.refuse(d, ReasonWaiting, waits.Why)
	case err != nil:
		r.failed(d, ReasonError, err)
	case len(made.Breaks) > 0:
		r.later(i.ID()) // making keys each minute would keep a core busy
		r.refuse(d, ReasonWouldBreak, fmt.Sprintf("%s: %s", made.Breaks[0].ID, made.Breaks[0].Cause))
	default:
		return true
	}
	return false
}

func (r *renewer) renewed(i *apply.Renewed) {
	leaf := i.Made.Chain[0]
	delete(r.decided, i.ID())
	// One that lives for minutes is due again at once, for it begins some minutes before
	// it is made.
	r.tries[i.ID()] = &try{backoff: retries(), after: r.clock.Running() + leaf.NotAfter.Sub(leaf.NotBefore)/20}
	d := Decision{Action: Renewed, ID: i.ID(), Node: i.Node, Path: i.Certificate.Path, Reason: ReasonDue, NotAfter: leaf.NotAfter,
		Text: "it was due; " + cmp.Or(strings.Join(i.TakeUp, "; "), "no component of these nodes reads it")}
	r.board.Decided(d)
	r.log.Info("renewed", "id", d.ID, "path", d.Path, "notAfter", leaf.NotAfter.UTC(), "due", r.Span.Moment(leaf), "takenUpBy", strings.Join(i.TakeUp, "; "))
	for _, w := range i.Warnings {
		r.log.Warn(w, "id", d.ID)
	}
}

// refuse says why what is due is not made anew, once for each reason; it is looked at
// again each round.
func (r *renewer) refuse(d Due, reason, text string, more ...any) {
	r.say(Decision{Action: Refused, ID: d.ID, Node: d.Node, Path: d.Path, Reason: reason, Text: text}, more...)
}

// failed says what went wrong, and remembers to try again later.
func (r *renewer) failed(d Due, reason string, err error) {
	pause := r.later(d.ID)
	r.say(Decision{Action: Failed, ID: d.ID, Node: d.Node, Path: d.Path, Reason: reason, Text: err.Error()}, append(hint(err), "again", pause.Round(time.Second))...)
}

// later has a credential tried again after a pause, longer each time.
func (r *renewer) later(id string) time.Duration {
	t := r.tries[id]
	if t == nil {
		t = &try{backoff: retries()}
		r.tries[id] = t
	}
	pause := min(t.backoff.Step(), 10*time.Minute)
	t.after = r.clock.Running() + pause
	return pause
}

// say notes a decision unless it is the one before: the rounds of a night would fill
// the log.
func (r *renewer) say(d Decision, more ...any) {
	kind := string(d.Action) + " " + d.Reason
	if d.Reason != ReasonClock && d.Reason != ReasonTurn { // which count down
		kind += " " + d.Text
	}
	if r.decided[d.ID] == kind {
		return
	}
	r.decided[d.ID] = kind
	r.board.Decided(d)
	log := r.log.Warn
	if d.Action == Failed || d.Action == Stuck {
		log = r.log.Error
	}
	log("not renewed: "+d.Text, append([]any{"id", d.ID, "path", d.Path, "reason", d.Reason}, more...)...)
}
