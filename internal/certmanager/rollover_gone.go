package certmanager

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// gone drops what is known of an issuer.
func (r *rollovers) gone(key issuerKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, key)
}

// forget removes the record of an issuer whose CA is not carried over, if there is one:
// it may hold a key.
func (r *rollovers) forget(ctx context.Context, key issuerKey) error {
	r.gone(key)
	at := r.recordAt(key)
	k, _ := r.stores.secrets.get(at)
	if k == nil || k.Type != recordType {
		return nil
	}
	return r.removeRecord(ctx, at, k.uid)
}

func (r *rollovers) removeRecord(ctx context.Context, at types.NamespacedName, uid types.UID) error {
	err := r.client.CoreV1().Secrets(at.Namespace).Delete(ctx, at.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing Secret %s: %w", at, err)
	}
	return nil
}

// orphanAgain is when the record of an issuer that is gone is looked at again.
const orphanAgain = 10 * time.Minute

// orphaned looks after the record of an issuer that was removed in the midst of a change:
// should it be made again, as tools do that replace objects, its applications still need
// what it published. The key goes at once, and the record when no certificate of the
// issuer is left. It returns when to look again; 0: there is nothing to look at.
func (r *rollovers) orphaned(ctx context.Context, key issuerKey) (time.Duration, error) {
	r.gone(key)
	at := r.recordAt(key)
	k, _ := r.stores.secrets.get(at)
	if k == nil || k.Type != recordType {
		return 0, nil
	}
	rec, err := r.readRecord(ctx, at)
	if err != nil || !rec.there || rec.owner != "" { // what has an owner goes with it
		return 0, err
	}
	if !r.tally(tallyMost).uses(key) {
		return 0, r.removeRecord(ctx, at, k.uid)
	}
	if rec.previous != nil {
		rec.previous, rec.kept = nil, time.Time{}
		return orphanAgain, r.writeRecord(ctx, key, "", rec)
	}
	return orphanAgain, nil
}

// uses tells whether there are live certificates of an issuer.
func (t *tally) uses(key issuerKey) bool {
	for is := range t.secrets {
		if is.issuer == key {
			return true
		}
	}
	return false
}

// recordOf is the issuer of which a Secret is the record; false: it is of none, or of one
// whose name is too long to be told.
func (r *rollovers) recordOf(at types.NamespacedName) (issuerKey, bool) {
	name, ok := strings.CutSuffix(at.Name, recordSuffix)
	key := issuerKey{at.Namespace, strings.TrimSuffix(name, issuerSuffix)}
	if cluster, of := strings.CutSuffix(name, clusterIssuerSuffix); of && at.Namespace == r.cluster {
		key = issuerKey{"", cluster}
	}
	return key, ok && r.recordAt(key) == at
}
