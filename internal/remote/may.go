package remote

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Standing is what a node may be given, whatever its files say: a machine that somebody
// took over tells what it likes.
type Standing struct {
	Name string // in the operator's inventory
	// Addresses are the hosts and addresses by which the operator names it.
	Addresses []string
	// Vouched tells that the operator answers for what it says.
	Vouched bool
	// Proven are the keys that it has proved to hold.
	Proven map[trust.Place]crypto.PublicKey
}

// Holds tells whether the node has proved to hold the key of a certificate.
func (s *Standing) Holds(c *x509.Certificate) bool {
	if c == nil {
		return false
	}
	for _, k := range s.Proven {
		if trust.SameKey(k, c.PublicKey) {
			return true
		}
	}
	return false
}

const (
	nodeUser  = "system:node:"
	nodeGroup = "system:nodes"
	masters   = "system:masters"
)

// May tells why a node may not have a credential. It may have
//   - what it could sign itself, for it holds the authority's key;
//   - what the operator vouches for, but no other node's identity;
//   - its kubelet's certificates, under its own names;
//   - what it has proved to hold, as long as that is good today: the same subject, names
//     and usages for a longer time. Never system:masters.
//
// by is the name of the authority that signs, as a node that is believed has it. The
// life of a certificate whose old span nobody granted is shortened.
func (s *Standing) May(i *renew.Item, by string, now time.Time) error {
	if other := s.isNode(i); other != "" && other != s.Name {
		return fmt.Errorf("%s: this machine is node %q today, and the operator calls it %q", i.ID(), other, s.Name)
	}
	if s.Holds(i.Authority().Certificate) {
		return nil
	}
	subject := i.Template().Subject
	if user, ok := strings.CutPrefix(subject.CommonName, nodeUser); ok && user != s.Name {
		return fmt.Errorf("%s: it would be node %q, and the operator calls it %q", i.ID(), user, s.Name)
	}
	if s.Vouched {
		return nil
	}
	if slices.Contains(subject.Organization, masters) {
		return fmt.Errorf("%s: %s is for nobody but control planes", i.ID(), masters)
	}
	granted := s.granted(i, now)
	if !granted && !s.ownKubelet(i, by) {
		return fmt.Errorf("%s: nothing but its own word says that it is %q: it has not proved to hold a certificate of that name that is good today", i.ID(), subject.String())
	}
	if err := s.names(i, granted); err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	if !granted {
		i.DropExtensions()
	}
	s.span(i, granted)
	return nil
}

// isNode is the node that the machine's kubelet has proved to be, empty where it has not:
// an inventory in which two names are swapped must not swap the nodes.
func (s *Standing) isNode(i *renew.Item) string {
	by := i.Authority().Certificate
	if i.Old == nil || by == nil || !s.Holds(i.Old) || !trust.SignedBy(i.Old, by) {
		return ""
	}
	name, ok := strings.CutPrefix(i.Old.Subject.CommonName, nodeUser)
	if !ok {
		return ""
	}
	return name
}

// granted tells that the node holds such a credential today.
func (s *Standing) granted(i *renew.Item, now time.Time) bool {
	by, raw := i.Authority().Certificate, i.Template().RawSubject
	switch {
	case i.Old == nil || by == nil || !s.Holds(i.Old) || !trust.SignedBy(i.Old, by):
		return false
	case now.Before(i.Old.NotBefore) || now.After(i.Old.NotAfter):
		return false
	case raw == nil || !bytes.Equal(raw, i.Old.RawSubject):
		return false
	}
	return !slices.ContainsFunc(i.Usages, func(u x509.ExtKeyUsage) bool { return !slices.Contains(i.Old.ExtKeyUsage, u) })
}

// ownKubelet tells that a credential is of the node's own kubelet: the name that the
// operator gave it, and of the authority of clients or of kubelets.
func (s *Standing) ownKubelet(i *renew.Item, by string) bool {
	t := i.Template()
	plain := len(t.Subject.Names) == 2 || t.RawSubject == nil && len(t.Subject.ToRDNSequence()) == 2
	return t.Subject.CommonName == nodeUser+s.Name && slices.Equal(t.Subject.Organization, []string{nodeGroup}) && plain &&
		slices.Contains([]string{catalog.ClusterCA, catalog.KubeletCA}, by)
}

// names refuses names that are neither the node's own nor those that it holds today.
func (s *Standing) names(i *renew.Item, granted bool) error {
	own := func(name string) bool {
		return strings.EqualFold(name, s.Name) || slices.ContainsFunc(s.Addresses, func(a string) bool { return strings.EqualFold(a, name) })
	}
	old := &x509.Certificate{}
	if granted {
		old = i.Old
	}
	for _, name := range i.DNSNames {
		if !own(name) && !slices.ContainsFunc(old.DNSNames, func(o string) bool { return strings.EqualFold(o, name) }) {
			return foreign(name)
		}
	}
	for _, a := range i.Addresses {
		if !slices.ContainsFunc(s.Addresses, func(o string) bool { return a.Equal(net.ParseIP(o)) }) && !slices.ContainsFunc(old.IPAddresses, a.Equal) {
			return foreign(a.String())
		}
	}
	for _, u := range i.URIs {
		if !slices.ContainsFunc(old.URIs, func(o *url.URL) bool { return o.String() == u.String() }) {
			return foreign(u.String())
		}
	}
	for _, e := range i.Emails {
		if !slices.Contains(old.EmailAddresses, e) {
			return foreign(e)
		}
	}
	return nil
}

func foreign(name string) error {
	return fmt.Errorf("nothing but its own word says that %q is its name", name)
}

// span bounds a life that is made of an old certificate which nobody granted.
func (s *Standing) span(i *renew.Item, granted bool) {
	if most := i.NotBefore.Add(catalog.DefaultValidity); !granted && i.NotAfter.After(most) {
		i.NotAfter = most
	}
}

// Keys are the public keys that certificates are for, each for one credential alone.
type Keys struct{ of map[string]string }

// Take notes whose a key is, and refuses one that is somebody else's already: a node
// could have the key of an authority certified, or another node's.
func (k *Keys) Take(by string, key crypto.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Errorf("%s: %w", by, err)
	}
	if k.of == nil {
		k.of = map[string]string{}
	}
	if of, taken := k.of[string(der)]; taken && of != by {
		return fmt.Errorf("%s: its key is that of %s", by, of)
	}
	k.of[string(der)] = by
	return nil
}

// Fits tells why a public key is not the one that an item was to get.
func (s *Standing) Fits(i *renew.Item, key crypto.PublicKey) error {
	switch {
	case i.Reused() && !trust.SameKey(s.Proven[i.Key], key) && !trust.SameKey(publicOf(i.Old), key):
		return fmt.Errorf("%s: the key is not the old one, which was to be kept", i.ID())
	case !i.Reused() && issue.AlgorithmOf(key) != i.Algorithm:
		return fmt.Errorf("%s: the key is of %s, and %s was to be made", i.ID(), issue.AlgorithmOf(key), i.Algorithm)
	}
	return nil
}

func publicOf(c *x509.Certificate) crypto.PublicKey {
	if c == nil {
		return nil
	}
	return c.PublicKey
}
