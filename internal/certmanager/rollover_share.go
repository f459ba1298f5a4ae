package certmanager

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/workload"
)

// SharedCA is the CA of an issuer for whoever signs something else with it than the loops
// of a [Controller] do, such as certificates of pods, in the same process or in another:
// it goes by the record of the issuer in the API, so that a change of the CA is carried
// through for them too. It keeps nothing, and is safe for concurrent use.
type SharedCA struct {
	Client kubernetes.Interface
	// Namespace is that of an Issuer, "" for a ClusterIssuer.
	Namespace, Name string
	// ClusterNamespace has the Secrets that ClusterIssuers name.
	ClusterNamespace string
}

func (s SharedCA) records() (*rollovers, issuerKey) {
	return &rollovers{client: s.Client, cluster: s.ClusterNamespace}, issuerKey{s.Namespace, s.Name}
}

// RecordName is the namespace and name of the Secret that is the record: when it changes
// another CA may sign.
func (s SharedCA) RecordName() (namespace, name string) {
	r, key := s.records()
	at := r.recordAt(key)
	return at.Namespace, at.Name
}

// Signing returns who signs now, given what the Secret of the issuer holds, and what
// readers shall trust. Without a record, which no controller keeps then, that is the one
// given, and the topmost of its chain. An error says that nothing may be signed now: the
// API server does not answer, or the CA has changed and the record does not name it yet.
func (s SharedCA) Signing(ctx context.Context, current *workload.Authority) (*workload.Authority, []*x509.Certificate, error) {
	r, key := s.records()
	rec, err := r.readRecord(ctx, r.recordAt(key))
	switch {
	case err != nil:
		return nil, nil, err
	case rec.version == "":
		return current, current.Chain[len(current.Chain)-1:], nil
	}
	id := currentOf(current).ID
	switch {
	case rec.Signing == id:
		return current, rec.list(), nil
	case rec.Find(id) == nil:
		return nil, nil, fmt.Errorf("the CA of issuer %s has changed, and Secret %s does not name it yet; if no controller with --enable workloads serves the issuer, remove that Secret", key.name, r.recordAt(key))
	case rec.holds(rec.Signing):
		return rec.previous, rec.list(), nil
	}
	return nil, nil, fmt.Errorf("the CA of issuer %s changes, and the key of the one that signs is not at hand: %w", key.name, errAgain)
}

// Given takes note of a certificate before it is given out: readers trust its CA as long
// as it lives. It writes only where the end is later than what is noted.
func (s SharedCA) Given(ctx context.Context, by *workload.Authority, end time.Time) error {
	r, key := s.records()
	at := r.recordAt(key)
	rec, err := r.readRecord(ctx, at)
	if err != nil || rec.version == "" {
		return err
	}
	id := currentOf(by).ID
	a := rec.Find(id)
	if a == nil {
		return fmt.Errorf("the CA that signed is not published any more: %w", errAgain)
	}
	if !a.Others.Before(end) {
		return nil
	}
	// A good deal more, so that not each one is a write.
	rec.noteOthers(map[rollover.ID]time.Time{id: end.Add(end.Sub(now()) / 4).Truncate(time.Second)})
	meta := metav1.ObjectMeta{Namespace: key.namespace, Name: key.name, UID: rec.owner}
	if key.namespace == "" {
		return r.writeRecord(ctx, at, &cmapi.ClusterIssuer{ObjectMeta: meta}, rec)
	}
	return r.writeRecord(ctx, at, &cmapi.Issuer{ObjectMeta: meta}, rec)
}
