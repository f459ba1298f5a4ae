package mtls

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// errNobody is what an empty list of those who are allowed says.
var errNobody = errors.New("nobody is allowed")

// Anyone returns an [Authorizer] that lets in each peer of the bundle.
func Anyone() Authorizer { return func(Peer) error { return nil } }

// UserNamed lets in these users, by the common name, as Kubernetes names users.
func UserNamed(names ...string) Authorizer {
	return func(p Peer) error {
		u, err := p.User()
		if err == nil && !slices.Contains(names, u.Name) {
			err = fmt.Errorf("the user %s is none of %q", short(u.Name), names)
		}
		return err
	}
}

// InGroup lets in the users of these groups, by the organizations, as Kubernetes
// names groups.
func InGroup(groups ...string) Authorizer {
	return func(p Peer) error {
		u, err := p.User()
		if err == nil && !slices.ContainsFunc(u.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			err = fmt.Errorf("the user %s is in none of the groups %q", short(u.Name), groups)
		}
		return err
	}
}

// Named lets in peers whose certificate is good for one of these names, DNS
// names or IP addresses, as clients match servers ([x509.Certificate.VerifyHostname]:
// wildcards count, common names do not).
func Named(names ...string) Authorizer {
	return func(p Peer) error {
		if p.Certificate == nil {
			return errNoPeer
		}
		err := errNobody
		for _, name := range names {
			if err = p.Certificate.VerifyHostname(name); err == nil {
				return nil
			}
		}
		return err
	}
}

// WithSPIFFEID lets in these SPIFFE IDs.
func WithSPIFFEID(ids ...spiffeid.ID) Authorizer {
	return func(p Peer) error {
		id, err := p.SPIFFEID()
		if err == nil && !slices.Contains(ids, id) {
			err = fmt.Errorf("the SPIFFE ID %s is none of %s", short(id.String()), ids)
		}
		return err
	}
}

// InTrustDomain lets in each SPIFFE ID of a trust domain.
func InTrustDomain(domain spiffeid.TrustDomain) Authorizer {
	return func(p Peer) error {
		id, err := p.SPIFFEID()
		if err == nil && !id.MemberOf(domain) {
			err = fmt.Errorf("the SPIFFE ID %s is not in the trust domain %s", short(id.String()), domain)
		}
		return err
	}
}

// ask is what an authorizer says. One that is nil lets nobody in, as in a guard.
func (a Authorizer) ask(p Peer) error {
	if a == nil {
		return errNobody
	}
	return a(p)
}

// AnyOf lets in whom one of several lets in; of none, nobody.
func AnyOf(of ...Authorizer) Authorizer {
	return func(p Peer) error {
		if len(of) == 0 {
			return errNobody
		}
		var all []error
		for _, may := range of {
			err := may.ask(p)
			if err == nil {
				return nil
			}
			all = append(all, err)
		}
		return errors.Join(all...)
	}
}

// AllOf lets in whom each of several lets in; of none, nobody.
func AllOf(of ...Authorizer) Authorizer {
	return func(p Peer) error {
		if len(of) == 0 {
			return errNobody
		}
		for _, may := range of {
			if err := may.ask(p); err != nil {
				return err
			}
		}
		return nil
	}
}
