package certmanager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// rollovers carry issuers with spec.ca over to other CAs
// (docs/design/0021-ca-rollover.md). It is safe for concurrent use.
type rollovers struct {
	settings    Rollover
	client      kubernetes.Interface
	stores      *stores
	authorities *authorities
	cluster     string // namespace of the Secrets that ClusterIssuers name
	log         *slog.Logger
	publish     PublishBundle
	events      Events
	// ours tells whether an issuer is served by this process.
	ours func(cmapi.GenericIssuer) bool
	// backoff is the first wait after an issuance that has failed.
	backoff time.Duration
	// changed hears that Certificates of an issuer are to be looked at: their bundle, or
	// when they are due.
	changed func(issuerKey)

	mu    sync.Mutex
	known map[issuerKey]*rolloverOf

	counting sync.Mutex
	counted  *tally
}

type rolloverOf struct {
	looking sync.Mutex // one looks at a time
	view    atomic.Pointer[view]
}

// view is what follows from a look. It is not changed once it is made.
type view struct {
	uid     types.UID
	current *workload.Authority // that the issuer names
	signing *workload.Authority // that signs: current, or the one before
	record  *caRecord
	plan    rollover.Plan
	bundle  []byte // the anchors in PEM
	wanted  workload.Bundle
	seen    census
	// wrong tells of an annotation that counts for nothing, or of a bundle that could not
	// be published; nil: nothing is.
	wrong error
}

// state returns the state of an issuer, which may be empty.
func (r *rollovers) state(key issuerKey) *rolloverOf {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.known[key]
	if o == nil {
		o = &rolloverOf{}
		r.known[key] = o
	}
	return o
}

func keyOf(issuer cmapi.GenericIssuer) issuerKey {
	return issuerKey{issuer.GetNamespace(), issuer.GetName()}
}

// recordAt is where the record of an issuer is.
func (r *rollovers) recordAt(key issuerKey) types.NamespacedName {
	namespace := key.namespace
	if namespace == "" {
		namespace = r.cluster
	}
	return types.NamespacedName{Namespace: namespace, Name: recordName(key)}
}

// authorityAt is the Secret that an issuer names.
func (r *rollovers) authorityAt(issuer cmapi.GenericIssuer) types.NamespacedName {
	return types.NamespacedName{Namespace: r.recordAt(keyOf(issuer)).Namespace, Name: issuer.GetSpec().CA.SecretName}
}

// signer returns who signs for an issuer now, and what its readers shall trust; nil: the
// topmost certificate alone. Nothing is signed with a CA that no record names.
func (r *rollovers) signer(ctx context.Context, issuer cmapi.GenericIssuer) (*workload.Authority, *view, error) {
	current, err := r.authorities.get(ctx, r.authorityAt(issuer))
	if err != nil {
		return nil, nil, err
	}
	if _, on, _ := r.settings.settingsOf(issuer, 0); !on {
		return current, nil, nil
	}
	v := r.state(keyOf(issuer)).view.Load()
	if v == nil || v.current != current || v.uid != issuer.GetUID() {
		if v, err = r.look(ctx, issuer); err != nil {
			return nil, nil, err
		}
	}
	return v.signing, v, nil
}

// look takes a look at an issuer: what follows is kept, and then published.
func (r *rollovers) look(ctx context.Context, issuer cmapi.GenericIssuer) (*view, error) {
	key := keyOf(issuer)
	state, at := r.state(key), r.recordAt(key)
	state.looking.Lock()
	defer state.looking.Unlock()
	current, err := r.authorities.get(ctx, r.authorityAt(issuer))
	if err != nil {
		return nil, err
	}
	if err := current.Usable(now()); err != nil {
		return nil, fmt.Errorf("%w: %w", errInvalid, err)
	}
	rec, err := r.readRecord(ctx, at)
	if err != nil {
		return nil, err
	}
	before, was, previous := state.view.Load(), rec.Record, rec.previous
	v := &view{uid: issuer.GetUID(), current: current, signing: current, record: rec}
	seen, set := r.see(ctx, issuer, v)
	is := seen.Current
	rec.noteOthers(v.seen.others)
	rec.Record, v.plan = rollover.Next(rec.Record, seen, set, now())
	rec.noteOthers(v.seen.others) // also of an anchor that was not known before
	if was.Find(is.ID) == nil && len(rec.Anchors) > 1 {
		v.seen.lacking[is.ID] = v.seen.places // nobody has it yet
	}
	rec.dropsUnused()
	rec.secret = issuer.GetSpec().CA.SecretName
	rec.letGo(is.ID, now())
	if rec.Signing != is.ID {
		v.signing = rec.previous
	}
	if rec.text != rec.encode() || rec.previous != previous || rec.owner != rec.ownerOf(key, issuer.GetUID()) {
		if err := r.writeRecord(ctx, key, issuer.GetUID(), rec); err != nil {
			return nil, err
		}
	}
	if err := r.publishAll(ctx, issuer, rec.list()); err != nil {
		v.wrong = errors.Join(v.wrong, err)
	}
	v.bundle, v.wanted = trust.EncodeCertificates(rec.list()...), workload.BundleOf(rec.list())
	state.view.Store(v)
	r.tell(issuer, was, before, v, set)
	if before == nil || before.wanted != v.wanted || v.movesDues(before) {
		r.changed(key)
	}
	return v, nil
}

// see collects what is to be seen of an issuer, and what its settings are.
func (r *rollovers) see(ctx context.Context, issuer cmapi.GenericIssuer, v *view) (rollover.Seen, rollover.Settings) {
	rec, key, is := v.record, keyOf(issuer), currentOf(v.current)
	seen := rollover.Seen{Current: is, Beside: r.beside(issuer, v.current, rec)}
	rec.certificates[is.ID] = v.current.Chain[len(v.current.Chain)-1]
	certificates := 0
	steady := rec.there && len(rec.Anchors) == 1 && rec.Anchors[0].Certificate == is.Certificate && len(seen.Beside) == 0
	if !steady { // of the only anchor nobody asks who uses it
		asked, _, _ := r.settings.settingsOf(issuer, 0)
		t := r.tally(asked.Accept / tallyWait)
		certificates = t.certificates[key]
		v.seen = t.census(key, rec, r.wants)
		r.givenBelow(key, rec, v.seen.others)
	}
	var set rollover.Settings
	set, _, v.wrong = r.settings.settingsOf(issuer, certificates)
	if err := r.publishAll(ctx, issuer, rec.list()); err != nil && !steady {
		for _, a := range rec.Anchors {
			v.seen.lacking[a.ID]++
		}
	}
	seen.Held = r.held(ctx, issuer, rec)
	seen.Lacking, seen.Leaves, seen.Own, seen.Order = v.seen.lacking, v.seen.leaves, v.seen.own, v.seen.order
	seen.Anew, seen.Failing = v.seen.own[rec.Signing], v.seen.failing
	return seen, set
}

// beside are the anchors that the issuer above publishes, where the CA of an issuer is an
// intermediate that a Certificate keeps: what was written by hand counts for nothing.
func (r *rollovers) beside(issuer cmapi.GenericIssuer, current *workload.Authority, rec *caRecord) []rollover.Anchor {
	if len(current.Beside) == 0 {
		return nil
	}
	at := r.authorityAt(issuer)
	k, _ := r.stores.secrets.get(at)
	if k == nil {
		return nil
	}
	if key, ok := issuerOf(k.Issuer, at.Namespace); !ok || !r.stores.written(at, &k.SecretFacts, key) {
		return nil
	}
	var all []rollover.Anchor
	for _, one := range current.Beside {
		a := anchorOf(one)
		a.SignsUntil = one.NotAfter
		if a.ID == currentOf(current).ID || !one.NotAfter.After(now()) {
			continue
		}
		switch i := slices.IndexFunc(all, func(b rollover.Anchor) bool { return a.ID == b.ID }); {
		case i < 0:
			all = append(all, a)
		case a.NotAfter.After(all[i].NotAfter): // certified again with its key
			all[i] = a
		default:
			continue
		}
		rec.certificates[a.ID] = one
	}
	return all
}

// carries tells whether Certificates of an issuer are carried over from one CA to another.
func (r *rollovers) carries(key issuerKey) bool {
	issuer := r.stores.issuer(key)
	if issuer == nil || issuer.GetSpec().CA == nil || !isReady(issuer) || !r.ours(issuer) {
		return false
	}
	_, on, _ := r.settings.settingsOf(issuer, 0)
	return on
}

// movesDues tells whether the times have changed at which Certificates are due.
func (v *view) movesDues(before *view) bool {
	if v.record.Signing != before.record.Signing || v.plan.Hold.IsZero() != before.plan.Hold.IsZero() || v.plan.Paused != before.plan.Paused {
		return true
	}
	return !v.record.Target().Published.Equal(before.record.Target().Published)
}

// keptFor is how long a pair stays in the record before the CA that replaces it is seen:
// longer than the work on a Certificate may take.
const keptFor = 5 * time.Minute

// letGo removes the pair of the CA before, once it is of no use.
func (r *caRecord) letGo(current rollover.ID, at time.Time) {
	if r.previous == nil || r.Signing != current && r.holds(r.Signing) {
		return
	}
	if r.Signing == current && r.holds(current) && at.Before(r.kept.Add(keptFor)) {
		return // its successor is on the way
	}
	r.previous, r.kept = nil, time.Time{}
}

// holds tells whether the pair of the record is of an anchor.
func (r *caRecord) holds(id rollover.ID) bool {
	return r.previous != nil && currentOf(r.previous).ID == id
}

// held tells whether the CA that signs is at hand where the issuer names another: in the
// record, or in the Secret that the issuer named before.
func (r *rollovers) held(ctx context.Context, issuer cmapi.GenericIssuer, rec *caRecord) bool {
	usable := func() bool { return rec.holds(rec.Signing) && rec.previous.Usable(now()) == nil }
	if usable() || rec.secret == "" || rec.secret == issuer.GetSpec().CA.SecretName {
		return usable()
	}
	at := r.authorityAt(issuer)
	secret, err := r.client.CoreV1().Secrets(at.Namespace).Get(ctx, rec.secret, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			r.log.Warn("workloads: the CA before cannot be read; it signs no more", "secret", at.Namespace+"/"+rec.secret, "error", err.Error())
		}
		return false
	}
	a, err := workload.AuthorityOf(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], secret.Data["ca.crt"])
	if err != nil || currentOf(a).ID != rec.Signing {
		return false
	}
	rec.previous, rec.kept = a, now()
	return usable()
}

// keep puts the pair that an issuer signs with into its record, before another takes its
// place in the Secret.
func (r *rollovers) keep(ctx context.Context, issuer cmapi.GenericIssuer) error {
	if _, on, _ := r.settings.settingsOf(issuer, 0); !on {
		return nil
	}
	v, err := r.look(ctx, issuer)
	if apierrors.IsNotFound(err) || errors.Is(err, errInvalid) {
		return nil // nothing is there that could sign
	}
	if err != nil {
		return err
	}
	state, at := r.state(keyOf(issuer)), r.recordAt(keyOf(issuer))
	state.looking.Lock()
	defer state.looking.Unlock()
	rec, err := r.readRecord(ctx, at)
	if err != nil || rec.Signing != currentOf(v.current).ID {
		return err // the one that signs is there already, or gone
	}
	rec.previous, rec.kept = v.current, now()
	return r.writeRecord(ctx, keyOf(issuer), issuer.GetUID(), rec)
}

// given takes note of a certificate that goes to somebody whose Secrets nobody sees,
// before it does: its anchor stays as long as it lives.
func (r *rollovers) given(ctx context.Context, issuer cmapi.GenericIssuer, by *workload.Authority, leaf *x509.Certificate) error {
	key := keyOf(issuer)
	state, at := r.state(key), r.recordAt(key)
	state.looking.Lock()
	defer state.looking.Unlock()
	v := state.view.Load()
	if v == nil {
		return errAgain
	}
	id := currentOf(by).ID
	if a := v.record.Find(id); a != nil && !a.Others.Before(leaf.NotAfter) {
		return nil
	}
	rec, err := r.readRecord(ctx, at)
	if err != nil {
		return err
	}
	if rec.Find(id) == nil {
		return errAgain
	}
	rec.give(id, leaf.NotAfter)
	if err := r.writeRecord(ctx, key, issuer.GetUID(), rec); err != nil {
		return err
	}
	next := *v
	next.record = rec
	state.view.Store(&next)
	return nil
}

// give takes note of a certificate that ends at a time: of a good deal more, so that not
// each one is a write.
func (r *caRecord) give(id rollover.ID, end time.Time) {
	r.noteOthers(map[rollover.ID]time.Time{id: end.Add(end.Sub(now()) / 4).Truncate(time.Second)})
}

// noteOthers has anchors stay until times.
func (r *caRecord) noteOthers(all map[rollover.ID]time.Time) {
	for id, until := range all {
		a := r.Find(id)
		if a == nil || !until.After(a.Others) {
			continue
		}
		if until.After(a.NotAfter) {
			until = a.NotAfter
		}
		a.Others = until
	}
}
