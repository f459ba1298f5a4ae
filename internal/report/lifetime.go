package report

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/trust"
)

// LifeKind tells what it is that ends.
type LifeKind string

// The kinds of a [Lifetime].
const (
	LifeAuthority      LifeKind = "authority"
	LifeCertificate    LifeKind = "certificate"
	LifeKubeconfig     LifeKind = "kubeconfig" // the client certificate in one
	LifeToken          LifeKind = "token"      // of a service account
	LifeBootstrapToken LifeKind = "bootstrap-token"
)

// LifeState tells how a credential stands at the time of a [Timeline].
type LifeState string

// The states of a [Lifetime].
const (
	LifeValid       LifeState = "valid"
	LifeExpiring    LifeState = "expiring" // it ends within the window
	LifeExpired     LifeState = "expired"
	LifeNotYetValid LifeState = "not-yet-valid"
	LifeEndless     LifeState = "endless"    // a token without an end
	LifeUnreadable  LifeState = "unreadable" // it is there, or should be, and could not be read
	LifeNotSeen     LifeState = "not-seen"   // its folder or source is not in what was given
)

// severity is that of the finding that `kubepki verify` has for it. A bootstrap token
// is meant to end.
func (l *Lifetime) severity() check.Severity {
	bootstrap := l.Kind == LifeBootstrapToken
	switch l.State {
	case LifeExpired, LifeEndless:
		if bootstrap {
			return check.Warning
		}
		if l.State == LifeEndless || l.replaced {
			return check.Info
		}
		return check.Error
	case LifeNotYetValid, LifeUnreadable:
		return check.Error
	case LifeExpiring:
		if bootstrap {
			return ""
		}
		if l.replaced {
			return check.Info
		}
		return check.Warning
	case LifeNotSeen:
		return check.Info
	}
	return ""
}

// Lifetime is one credential and from when until when it is good.
type Lifetime struct {
	Kind LifeKind `json:"kind"`
	// Cluster is the folder or file that was given, when several were.
	Cluster string `json:"cluster,omitempty"`
	Node    string `json:"node,omitempty"`
	Name    string `json:"name"`
	Path    string `json:"path"`
	Field   string `json:"field,omitempty"` // of a kubeconfig or manifest
	// Copies are further places of the same authority.
	Copies  []AuthorityPlace `json:"copies,omitempty"`
	Subject string           `json:"subject,omitempty"`
	Serial  string           `json:"serial,omitempty"`
	SHA256  string           `json:"sha256,omitempty"` // of the certificate, hexadecimal
	// NotBefore and NotAfter are absent where they are not known.
	NotBefore *time.Time `json:"notBefore,omitempty"`
	NotAfter  *time.Time `json:"notAfter,omitempty"`
	State     LifeState  `json:"state"`
	// Severity is that of the finding; absent where there is none.
	Severity check.Severity `json:"severity,omitempty"`
	Problem  string         `json:"problem,omitempty"` // why it could not be read

	id      string // stays the same when the credential is made anew
	machine string // where a node without a name is
	// replaced tells of an anchor beside a good one, whose end is no harm.
	replaced bool
}

// Timeline is the answer of `kubepki show --expiry`: what ends, and when.
type Timeline struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	At         time.Time `json:"at"`
	// Expiring is the window that was asked for; absent: 30 days or a tenth of the
	// life, whichever is shorter.
	Expiring    string     `json:"expiring,omitempty"`
	Credentials []Lifetime `json:"credentials"` // those that end first are first
	// Others counts those that were left out, for they end later.
	Others int `json:"others,omitempty"`

	window time.Duration
	known  map[certificateIn]int // of each certificate the first place in Credentials
}

// certificateIn is a certificate, by its hash, in a cluster.
type certificateIn struct{ cluster, sha256 string }

// NewTimeline returns one without credentials, as of a time. A window of 0 is
// that of the finding cert-expiring.
func NewTimeline(at time.Time, window time.Duration) *Timeline {
	t := &Timeline{APIVersion: APIVersion, Kind: "Timeline", At: at.UTC().Truncate(time.Second), Credentials: []Lifetime{}, window: window, known: map[certificateIn]int{}}
	if window > 0 {
		t.Expiring = window.String()
	}
	return t
}

// Add adds one credential and judges its dates; those that are not known
// are nil. The parts of origin, with the place, name it among all credentials of all
// clusters, however often it is made anew.
func (t *Timeline) Add(l Lifetime, origin ...string) {
	switch {
	case l.State != "":
	case l.NotAfter == nil:
		l.State = LifeEndless
	case t.At.After(*l.NotAfter):
		l.State = LifeExpired
	case l.NotBefore != nil && t.At.Before(*l.NotBefore):
		l.State = LifeNotYetValid
	case t.expiring(&l):
		l.State = LifeExpiring
	default:
		l.State = LifeValid
	}
	l.Severity = l.severity()
	if _, seen := t.known[certificateIn{l.Cluster, l.SHA256}]; !seen {
		t.known[certificateIn{l.Cluster, l.SHA256}] = len(t.Credentials)
	}
	l.id = identify(append(slices.Clone(origin), string(l.Kind), l.Node, l.Path, l.Field)...)
	t.Credentials = append(t.Credentials, l)
}

// expiring tells of a token that does not say when it began only within a window that
// was asked for: nobody knows what a tenth of its life is.
func (t *Timeline) expiring(l *Lifetime) bool {
	switch {
	case l.NotBefore != nil:
		return check.Expiring(*l.NotBefore, *l.NotAfter, t.At, t.window)
	case t.window > 0:
		return check.Expiring(time.Time{}, *l.NotAfter, t.At, t.window)
	}
	return false
}

func identify(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// addAuthority adds a certificate of an authority, or a further place of it. Its
// key names it: certified again it is the same. Beside are those with which it stands
// in a bundle.
func (t *Timeline) addAuthority(cluster, name string, at AuthorityPlace, c *inspect.Certificate, beside ...*x509.Certificate) {
	if i, seen := t.known[certificateIn{cluster, c.SHA256}]; seen {
		l := &t.Credentials[i]
		l.Copies = append(l.Copies, AuthorityPlace{Node: at.Node, Path: at.Path, Field: at.Field})
		return
	}
	l := withCertificate(Lifetime{Kind: LifeAuthority, Cluster: cluster, Node: at.Node, Name: name, Path: at.Path, Field: at.Field}, c)
	l.replaced = slices.ContainsFunc(beside, func(o *x509.Certificate) bool {
		return o.NotAfter.After(c.NotAfter) && !check.Expiring(o.NotBefore, o.NotAfter, t.At, t.window) && o.NotAfter.After(t.At)
	})
	t.Add(l)
	t.Credentials[len(t.Credentials)-1].id = identify(string(LifeAuthority), c.PublicKeySHA256)
}

func withCertificate(l Lifetime, c *inspect.Certificate) Lifetime {
	l.Subject, l.Serial, l.SHA256, l.NotBefore, l.NotAfter = c.Subject, c.Serial, c.SHA256, &c.NotBefore, &c.NotAfter
	return l
}

// AddInventory adds what the nodes of a cluster have. A node without a name is called
// machine in a calendar; origin is what stands for it among all machines.
func (t *Timeline) AddInventory(v *Inventory, machine, origin string) {
	identity := ""
	for i := range v.Authorities {
		a := &v.Authorities[i]
		identity = cmp.Or(identity, a.PublicKeySHA256)
		for _, at := range a.Places {
			t.addAuthority(v.Name, a.Name, at, a.Certificate)
		}
	}
	for i := range v.Credentials {
		c := &v.Credentials[i]
		l := Lifetime{Kind: LifeCertificate, Cluster: v.Name, Node: c.Node, Name: c.Name, Path: c.Path, Field: c.Field, Problem: c.Problem, machine: machine}
		switch {
		case c.Certificate != nil:
			l = withCertificate(l, c.Certificate)
		case c.absent:
			l.State = LifeNotSeen
		default:
			l.State = LifeUnreadable
		}
		if strings.HasPrefix(c.Field, "users[") || strings.HasSuffix(c.Name, ".conf") {
			l.Kind = LifeKubeconfig
		}
		if c.Node == "" {
			t.Add(l, identity, origin)
		} else {
			t.Add(l, identity)
		}
	}
	for _, n := range v.NotSeen {
		if n.Denied {
			t.Add(Lifetime{Kind: LifeCertificate, Cluster: v.Name, Node: n.Node, Name: n.Path, Path: n.Path, State: LifeUnreadable, Problem: n.Reason}, origin)
		}
	}
}

// AddAnchors adds the authorities that stand in the bundles of a cluster and
// nowhere else, such as one of before a rotation, or of a stranger.
func (t *Timeline) AddAnchors(cluster string, g *trust.Graph) {
	for _, p := range placesOf(g) {
		m := g.Materials[p]
		if m.Role != trust.RoleBundle && m.Role != trust.RoleAnchors && m.Role != trust.RoleAuthority || !m.OK() {
			continue
		}
		for _, c := range m.Certificates {
			sum := sha256.Sum256(c.Raw)
			if _, seen := t.known[certificateIn{cluster, hex.EncodeToString(sum[:])}]; seen {
				continue // it is listed where its own file stands
			}
			described := inspect.NewCertificate(c)
			t.addAuthority(cluster, cmp.Or(c.Subject.CommonName, described.Subject), AuthorityPlace{Node: p.Node, Path: p.Path, Field: p.Field}, described, m.Certificates...)
		}
	}
}

// AddFile adds what has an end in a file, and tells whether there is anything. The
// node is that of the file, "" where it is of none.
func (t *Timeline) AddFile(f *File, cluster, node, origin string) bool {
	found := false
	var object *inspect.Object
	for i := range f.Parts {
		p := &f.Parts[i]
		at := Lifetime{Cluster: cluster, Node: node, Path: f.Path, Field: p.Field}
		if p.Field == "" && p.Line > 1 {
			at.Field = fmt.Sprintf("line %d", p.Line)
		}
		switch {
		case p.Object != nil:
			object = p.Object
			if !object.IsBootstrapToken() {
				continue
			}
			at.Kind, at.Name, at.NotAfter = LifeBootstrapToken, object.Name, object.Expires
			t.Add(at, origin)
		case p.Certificate != nil && p.Certificate.IsAuthority:
			t.addAuthority(cluster, p.Certificate.Subject, AuthorityPlace{Node: node, Path: f.Path, Field: at.Field}, p.Certificate)
		case p.Certificate != nil:
			at.Kind, at.Name = LifeCertificate, p.Certificate.Subject
			if strings.HasPrefix(p.Field, "users[") {
				at.Kind = LifeKubeconfig
			}
			t.Add(withCertificate(at, p.Certificate), origin)
		case p.Token != nil:
			at.Kind, at.Name, at.Subject = LifeToken, cmp.Or(p.Token.Subject, "token"), p.Token.Subject
			at.NotBefore, at.NotAfter = p.Token.NotBefore, p.Token.Expires
			if at.NotBefore == nil {
				at.NotBefore = p.Token.IssuedAt
			}
			t.Add(at, origin)
		default:
			continue
		}
		found = true
	}
	return found
}

// AddServer adds what a server presents.
func (t *Timeline) AddServer(s *Server) {
	for i, c := range s.Certificates {
		if i > 0 && c.IsAuthority {
			t.addAuthority("", c.Subject, AuthorityPlace{Path: s.Address}, c)
			continue
		}
		t.Add(withCertificate(Lifetime{Kind: LifeCertificate, Name: s.Address, Path: s.Address}, c), "server", fmt.Sprint(i))
	}
}

// Sort puts those that end first first; what could not be read stands before them,
// and what has no end after them.
func (t *Timeline) Sort() {
	slices.SortStableFunc(t.Credentials, func(a, b Lifetime) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.end().Compare(b.end()), cmp.Compare(a.Cluster, b.Cluster),
			byName(a.Name, b.Name), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Field, b.Field))
	})
}

func (l *Lifetime) rank() int {
	switch l.State {
	case LifeUnreadable:
		return 0
	case LifeEndless:
		return 2
	case LifeNotSeen:
		return 3
	}
	return 1
}

func (l *Lifetime) end() time.Time {
	if l.NotAfter == nil {
		return time.Time{}
	}
	return *l.NotAfter
}

// OnlyDue leaves those out that are good for longer than the window.
func (t *Timeline) OnlyDue() {
	all := len(t.Credentials)
	t.Credentials = slices.DeleteFunc(t.Credentials, func(l Lifetime) bool { return l.Severity != check.Error && l.Severity != check.Warning })
	t.Others = all - len(t.Credentials)
}

// Any tells whether some credential has a finding of this severity or a worse one.
func (t *Timeline) Any(least check.Severity) bool {
	return slices.ContainsFunc(t.Credentials, func(l Lifetime) bool {
		switch least {
		case check.Info:
			return l.Severity != ""
		case check.Warning:
			return l.Severity == check.Warning || l.Severity == check.Error
		}
		return l.Severity == check.Error
	})
}
