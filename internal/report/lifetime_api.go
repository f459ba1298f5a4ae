package report

import (
	"cmp"
	"time"

	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/trust"
)

// AddObjects adds what the API of a cluster holds: the anchors of bundles, what its
// API server presents, tokens of Secrets. The origin names the cluster among all.
func (t *Timeline) AddObjects(n *trust.Node, origin string) {
	t.AddMaterials(n.Materials, origin)
	for i := range n.Objects.Tokens {
		s := &n.Objects.Tokens[i]
		if s.Empty {
			continue
		}
		l := Lifetime{Kind: LifeToken, Node: s.Place.Node, Name: s.Namespace + "/" + s.Secret, Path: s.Place.Path, Field: s.Place.Field,
			Subject: "system:serviceaccount:" + s.Namespace + ":" + s.Account, NotAfter: known(s.Expires)}
		t.Add(l, origin)
	}
}

// AddMaterials adds certificates: those of a bundle as authorities, else the first
// of each chain. The origin names their cluster among all.
func (t *Timeline) AddMaterials(all []*trust.Material, origin string) {
	for _, m := range all {
		l := Lifetime{Kind: LifeCertificate, Node: m.Place.Node, Name: m.Place.Path, Path: m.Place.Path, Field: m.Place.Field}
		switch {
		case m.State == trust.Missing || m.State == trust.NotGiven || m.State == trust.Present && m.Leaf() == nil:
		case !m.OK():
			l.State, l.Problem = LifeUnreadable, problemOf(m)
			t.Add(l, origin)
		case m.Role == trust.RoleCertificate && !m.Leaf().IsCA:
			t.Add(withCertificate(l, inspect.NewCertificate(m.Leaf())), origin)
		default:
			for _, c := range m.Certificates {
				t.addAuthority("", cmp.Or(c.Subject.CommonName, c.Subject.String()), AuthorityPlace{Node: m.Place.Node, Path: m.Place.Path, Field: m.Place.Field}, inspect.NewCertificate(c), m.Certificates...)
			}
		}
	}
}

// AddBootstrapToken adds the token of a Secret in kube-system; times that are not
// known are zero. The origin names the cluster among all.
func (t *Timeline) AddBootstrapToken(secret, origin string, created, expires time.Time) {
	path := "secret/kube-system/" + secret
	t.Add(Lifetime{Kind: LifeBootstrapToken, Node: trust.ClusterNode, Name: secret, Path: path, NotBefore: known(created), NotAfter: known(expires)}, origin)
}

func known(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}
