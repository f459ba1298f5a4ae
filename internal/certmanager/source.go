package certmanager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/workload"
)

// IssuerSource is the authority of a CA issuer for whoever signs something else with it
// than CertificateRequests. The issuer, its Secret and the record of its CAs are watched
// by their names: while the CA changes the one signs that the record names, and all are
// published that it has. It is safe for concurrent use; the fields are not changed once it
// runs.
type IssuerSource struct {
	Client *Client
	// Namespace is that of an Issuer, "" for a ClusterIssuer.
	Namespace, Name string
	// ClusterNamespace has the Secret that a ClusterIssuer names.
	ClusterNamespace string
	// Told hears when the authority has changed, and when it cannot be used, or a new one
	// not yet.
	Told func(*x509.Certificate, error)
	// Unrecorded hears once that the record of the issuer's CAs may not be read or written:
	// then the CA changes at once. nil: nobody does.
	Unrecorded func(error)

	mu        sync.Mutex
	known     bool
	authority issue.Authority
	signing   *workload.Authority // what authority was made of
	anchors   []*x509.Certificate
	err       error
	said      string // the error that was told while an authority stays
	warned    sync.Once
}

func (s *IssuerSource) shared() SharedCA {
	return SharedCA{Client: s.Client.Kube, Namespace: s.Namespace, Name: s.Name, ClusterNamespace: s.ClusterNamespace}
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

// Anchors are what readers shall trust, the oldest first: while the CA changes the one
// before as well as the one to come. The error is that of [IssuerSource.Authority].
func (s *IssuerSource) Anchors() ([]*x509.Certificate, error) {
	if _, err := s.Authority(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.anchors), nil
}

// Given takes note, before it is given out, of a certificate that an authority has signed
// and of its end: the anchor stays published until then. An error says that it must not be
// given out now: another CA signs by now, or the API server does not answer.
func (s *IssuerSource) Given(ctx context.Context, by issue.Authority, end time.Time) error {
	s.mu.Lock()
	signing, same := s.signing, s.signing != nil && s.authority.Certificate.Equal(by.Certificate)
	s.mu.Unlock()
	if !same {
		return fmt.Errorf("another authority of %s signs by now: %w", s.text(), errAgain)
	}
	err := s.shared().Given(ctx, signing, end)
	if apierrors.IsForbidden(err) {
		s.unrecorded(err)
		return nil
	}
	return err
}

func (s *IssuerSource) unrecorded(err error) {
	s.warned.Do(func() {
		if s.Unrecorded != nil {
			s.Unrecorded(err)
		}
	})
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
	namespace, name := s.shared().RecordName()
	running.Go(func() {
		watch(ctx, s.Client.Kube.CoreV1().RESTClient(), "secrets", namespace, named(name), &corev1.Secret{}, &oneSecret{touched: func(string) { signal() }})
	})
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
		s.take(nil, nil, fmt.Errorf("there is no %s", s.text()))
		return nil
	}
	if issuer.GetSpec().CA == nil {
		s.take(nil, nil, fmt.Errorf("%s is no CA issuer: use one with spec.ca", s.text()))
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
		s.take(nil, nil, fmt.Errorf("%s: Secret %s: %w", s.text(), secret, err))
		return nil
	}
	signing, anchors, err := s.shared().Signing(ctx, got)
	if apierrors.IsForbidden(err) {
		s.unrecorded(err)
		signing, anchors, err = got, got.Chain[len(got.Chain)-1:], nil
	}
	if err == nil {
		err = signing.Usable(now())
	}
	if err != nil {
		s.stays(fmt.Errorf("%s: %w", s.text(), err))
		return err
	}
	s.take(signing, anchors, nil)
	return nil
}

// stays keeps the authority that signs, where there is one, and says once why no other
// is taken.
func (s *IssuerSource) stays(err error) {
	s.mu.Lock()
	signs := s.known && s.err == nil
	told := s.said == err.Error()
	s.said = err.Error()
	s.mu.Unlock()
	if !signs {
		s.take(nil, nil, err)
	} else if !told && s.Told != nil {
		s.Told(nil, err)
	}
}

// take takes who signs from now on, and what readers shall trust, or why nobody does.
func (s *IssuerSource) take(by *workload.Authority, anchors []*x509.Certificate, err error) {
	var a issue.Authority
	if err == nil { // the chain goes up to the root, where the Secret has it: it is what others trust
		a = issue.Authority{Certificate: by.Chain[0], Key: by.Key, Chain: by.Chain}
	}
	s.mu.Lock()
	same := s.known && (err == nil && s.err == nil && s.authority.Certificate.Equal(a.Certificate) || err != nil && s.err != nil && err.Error() == s.err.Error())
	s.known, s.authority, s.signing, s.anchors, s.err = true, a, by, anchors, err
	if err == nil {
		s.said = ""
	}
	s.mu.Unlock()
	if !same && s.Told != nil {
		s.Told(a.Certificate, err)
	}
}
