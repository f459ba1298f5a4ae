package certmanager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/issue"
)

// IssuerSource is the authority of a CA issuer for whoever signs something else with it
// than CertificateRequests. The issuer and its Secret are watched by their names. It is
// safe for concurrent use; the fields are not changed once it runs.
type IssuerSource struct {
	Client *Client
	// Namespace is that of an Issuer, "" for a ClusterIssuer.
	Namespace, Name string
	// ClusterNamespace has the Secret that a ClusterIssuer names.
	ClusterNamespace string
	// Told hears when the authority has changed, and when it cannot be used.
	Told func(*x509.Certificate, error)

	mu        sync.Mutex
	known     bool
	authority issue.Authority
	err       error
}

// Authority returns the authority as it was last read, with all above it as far as the
// Secret has them. An error says why nothing can be signed now.
func (s *IssuerSource) Authority() (issue.Authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.known:
		return issue.Authority{}, fmt.Errorf("%s has not been read yet", s.text())
	case s.err != nil:
		return issue.Authority{}, s.err
	}
	return s.authority, nil
}

func (s *IssuerSource) text() string {
	if s.Namespace == "" {
		return fmt.Sprintf("%s %q", cmapi.ClusterIssuerKind, s.Name)
	}
	return fmt.Sprintf("%s %q of namespace %q", cmapi.IssuerKind, s.Name, s.Namespace)
}

// sourceAgain is when an authority is read again that could not be read.
const sourceAgain = 10 * time.Second

// Run keeps the authority up to date until the context ends. While the API server is
// away the one that was read last stays.
func (s *IssuerSource) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	all := newAuthorities(s.Client.Kube, func(types.NamespacedName) { signal() })
	all.start(ctx)
	var running sync.WaitGroup
	get := s.follow(ctx, &running, signal)
	defer all.wait()
	defer running.Wait()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
		again = nil
		if err := s.read(ctx, all, get()); err != nil {
			again = time.After(sourceAgain)
		}
	}
}

// follow watches the issuer, and returns what tells how it is: nil where there is none.
func (s *IssuerSource) follow(ctx context.Context, running *sync.WaitGroup, signal func()) func() cmapi.GenericIssuer {
	key := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	if s.Namespace == "" {
		found := newStore(whole[cmapi.ClusterIssuer])
		found.told = func(types.NamespacedName, *cmapi.ClusterIssuer, *cmapi.ClusterIssuer) { signal() }
		running.Go(func() { watch(ctx, s.Client.CM, clusterIssuers, "", named(s.Name), &cmapi.ClusterIssuer{}, found) })
		running.Go(func() { afterSync(ctx, found.synced, signal) })
		return func() cmapi.GenericIssuer {
			if o, _ := found.get(key); o != nil {
				return o
			}
			return nil
		}
	}
	found := newStore(whole[cmapi.Issuer])
	found.told = func(types.NamespacedName, *cmapi.Issuer, *cmapi.Issuer) { signal() }
	running.Go(func() { watch(ctx, s.Client.CM, issuers, s.Namespace, named(s.Name), &cmapi.Issuer{}, found) })
	running.Go(func() { afterSync(ctx, found.synced, signal) })
	return func() cmapi.GenericIssuer {
		if o, _ := found.get(key); o != nil {
			return o
		}
		return nil
	}
}

// afterSync signals once a list has come, also an empty one.
func afterSync(ctx context.Context, synced <-chan struct{}, signal func()) {
	select {
	case <-ctx.Done():
	case <-synced:
		signal()
	}
}

// read takes the authority of an issuer. An error is of the API server, and to be tried
// again: what was read before stays.
func (s *IssuerSource) read(ctx context.Context, all *authorities, issuer cmapi.GenericIssuer) error {
	if issuer == nil {
		s.take(issue.Authority{}, fmt.Errorf("there is no %s", s.text()))
		return nil
	}
	if issuer.GetSpec().CA == nil {
		s.take(issue.Authority{}, fmt.Errorf("%s is no CA issuer: use one with spec.ca", s.text()))
		return nil
	}
	secret := caSecret(issuer, s.ClusterNamespace)
	all.forget(func(key types.NamespacedName) bool { return key == secret })
	got, err := all.get(ctx, secret)
	if err == nil {
		err = got.Usable(now())
	} else if !errors.Is(err, errInvalid) && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		s.take(issue.Authority{}, fmt.Errorf("%s: Secret %s: %w", s.text(), secret, err))
		return nil
	}
	// The chain goes up to the root, where the Secret has it: it is what others trust.
	s.take(issue.Authority{Certificate: got.Chain[0], Key: got.Key, Chain: got.Chain}, nil)
	return nil
}

func (s *IssuerSource) take(a issue.Authority, err error) {
	s.mu.Lock()
	same := s.known && (err == nil && s.err == nil && s.authority.Certificate.Equal(a.Certificate) || err != nil && s.err != nil && err.Error() == s.err.Error())
	s.known, s.authority, s.err = true, a, err
	s.mu.Unlock()
	if !same && s.Told != nil {
		s.Told(a.Certificate, err)
	}
}
