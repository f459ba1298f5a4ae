package renew

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

func publicOf(c *x509.Certificate) crypto.PublicKey {
	if c == nil {
		return nil
	}
	return c.PublicKey
}

func publicOfKey(k crypto.Signer) crypto.PublicKey {
	if k == nil {
		return nil
	}
	return k.Public()
}

// addressIn is the address that a URL names; the zero Addr where it names none.
func addressIn(s string) netip.Addr {
	u, err := url.Parse(s)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	return addr
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http")
}

// mastersGroup is admitted to everything, before any authorization.
const mastersGroup = "system:masters"

// identify keeps the old subject byte for byte where it is the one that the role
// needs; else the role's name and groups replace it, and what more it had stays.
func (p *planner) identify(i *Item, cred *trust.Credential, e catalog.Entry) error {
	wrong := p.found(cred.Certificate, "identity-wrong", "identity-privileged", "requestheader-name-mismatch") || p.found(cred.Certificate.File(), "identity-wrong", "identity-privileged")
	if i.Old != nil && !wrong && p.accepted(cred, i.Old.Subject) && (i.Old.Subject.CommonName != "" || hasNames(i.Old)) {
		// No rule looks at a server's groups, and as a client it would be everybody's master.
		if groups := i.Old.Subject.Organization; cred.Server && !cred.Client && slices.Contains(groups, mastersGroup) {
			i.Subject = pkix.Name{CommonName: i.Old.Subject.CommonName, Organization: slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return g == mastersGroup })}
			return i.keepSubject(i.Old)
		}
		i.Subject, i.rawSubject = i.Old.Subject, i.Old.RawSubject
		return nil
	}
	want := pkix.Name{CommonName: e.CommonName, Organization: e.Organization}
	if user := p.wantedUser(cred); user != "" && (want.CommonName == "" || !p.accepted(cred, want)) {
		want.CommonName = user
	}
	if want.CommonName == "" {
		want = p.caller(cred)
	}
	if want.CommonName == "" || strings.HasSuffix(want.CommonName, nodePrefix) {
		return &Refusal{i.ID(), "no file tells the name that it needs",
			"kubepki kubeconfig node NAME and kubepki kubeconfig user NAME make one for a name, kubepki issue a pair"}
	}
	if !p.accepted(cred, want) {
		return &Refusal{i.ID(), fmt.Sprintf("nobody would accept it as %s", want.String()), "see what kubepki verify says of the flags that name whom they accept"}
	}
	i.Subject = want
	if i.Old != nil {
		return i.keepSubject(i.Old)
	}
	return nil
}

// caller is the usual subject of the component whose flag names a kubeconfig; empty
// where that is none of those with a name of their own.
func (p *planner) caller(cred *trust.Credential) pkix.Name {
	k, n := p.kubeconfigOf(cred), p.node(cred.Node)
	for i := range n.Components {
		c := &n.Components[i]
		if at, _ := c.Flag("kubeconfig"); k == nil || at != k.Place.Path {
			continue
		}
		switch c.Name {
		case catalog.ControllerManager, catalog.Scheduler, catalog.KubeProxy:
			return pkix.Name{CommonName: "system:" + c.Name}
		case catalog.Kubelet:
			return pkix.Name{CommonName: nodePrefix + p.nodeName(n), Organization: []string{"system:nodes"}}
		}
	}
	return pkix.Name{}
}

func hasNames(c *x509.Certificate) bool {
	return len(c.DNSNames)+len(c.IPAddresses)+len(c.URIs)+len(c.EmailAddresses) > 0
}

// accepted tells whether every callee takes a subject for whom it should be.
func (p *planner) accepted(cred *trust.Credential, s pkix.Name) bool {
	for _, w := range p.wants(cred) {
		switch {
		case w.Named && s.CommonName == "", w.User != "" && s.CommonName != w.User,
			w.Prefix != "" && !strings.HasPrefix(s.CommonName, w.Prefix),
			w.Group != "" && !slices.Contains(s.Organization, w.Group),
			len(w.Names) > 0 && !slices.Contains(w.Names, s.CommonName):
			return false
		}
	}
	return true
}

// wantedUser is the name that some callee asks for.
func (p *planner) wantedUser(cred *trust.Credential) string {
	for _, w := range p.wants(cred) {
		if w.User != "" {
			return w.User
		}
		if len(w.Names) > 0 {
			return w.Names[0]
		}
	}
	return ""
}

func (p *planner) wants(cred *trust.Credential) []trust.Identity { return p.wanted[cred] }

// names are those of the old certificate, all that the links need, and those of the
// configuration; without an old certificate the role's usual ones.
func (p *planner) names(i *Item, cred *trust.Credential, e catalog.Entry) {
	configured := p.configured(i.Node) != nil
	needed := p.needed(cred)
	if i.Old == nil || configured {
		needed = append(needed, namesIn(e)...)
	}
	if i.Old != nil {
		i.URIs, i.Emails = i.Old.URIs, i.Old.EmailAddresses
		i.DNSNames, i.Addresses = slices.Clone(i.Old.DNSNames), slices.Clone(i.Old.IPAddresses)
		if p.PruneNames && configured && len(namesIn(e)) > 0 {
			i.prune(needed)
		}
	}
	if i.Old == nil && !configured {
		if a := apiserver(p.node(cred.Node)); i.Name == "apiserver" && (a == nil || a.Source.IsZero()) {
			i.Warnings = append(i.Warnings, fmt.Sprintf("no manifest and no old certificate tell the services' subnet and domain: kubeadm's defaults %s and %s are taken", catalog.DefaultServiceSubnet, catalog.DefaultDNSDomain))
		}
	}
	slices.Sort(needed)
	for _, name := range slices.Compact(needed) {
		i.addName(name)
	}
}

// needed are the names at which links have a credential reached.
func (p *planner) needed(cred *trust.Credential) []string {
	var names []string
	for _, h := range p.servers[cred] {
		names = append(names, p.dialled(h)...)
	}
	return names
}

func namesIn(e catalog.Entry) []string {
	names := slices.Clone(e.DNSNames)
	for _, a := range e.Addresses {
		if a.IsValid() {
			names = append(names, a.String())
		}
	}
	return names
}

// prune leaves out the names of the old certificate that nobody asks for.
func (i *Item) prune(asked []string) {
	i.DNSNames = slices.DeleteFunc(i.DNSNames, func(have string) bool {
		return !slices.ContainsFunc(asked, func(n string) bool { return strings.EqualFold(n, have) })
	})
	i.Addresses = slices.DeleteFunc(i.Addresses, func(have net.IP) bool {
		return !slices.ContainsFunc(asked, func(n string) bool { return have.Equal(net.ParseIP(n)) })
	})
}

// dialled are the names that a caller dials, but for one whose kubeconfig is what
// is wrong: a certificate must not hold whatever somebody mistyped.
func (p *planner) dialled(h *trust.ServerHalf) []string {
	if h.Dialled != nil && !h.Dialled.Served {
		return nil
	}
	return h.Names
}

func (i *Item) addName(name string) {
	if name == "" {
		return
	}
	if ip := net.ParseIP(name); ip != nil {
		if !slices.ContainsFunc(i.Addresses, ip.Equal) {
			i.Addresses = append(i.Addresses, ip)
		}
		return
	}
	if !slices.ContainsFunc(i.DNSNames, func(have string) bool { return strings.EqualFold(have, name) }) {
		i.DNSNames = append(i.DNSNames, name)
	}
}

// usages are what the links need, and what more for TLS an old certificate had
// that had all of that.
func (p *planner) usages(i *Item, cred *trust.Credential) {
	need := map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageServerAuth: cred.Server, x509.ExtKeyUsageClientAuth: cred.Client}
	complete := i.Old != nil
	for u, needed := range need {
		complete = complete && (!needed || slices.Contains(i.Old.ExtKeyUsage, u))
	}
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if need[u] || complete && slices.Contains(i.Old.ExtKeyUsage, u) {
			i.Usages = append(i.Usages, u)
		}
	}
}

// warnOfNames tells of names that are taken from a certificate that is nobody's here.
func (p *planner) warnOfNames(i *Item) {
	if i.Old != nil && i.signer.Certificate != nil && hasNames(i.Old) && !p.judgement.SignedBy(i.Old, i.signer.Certificate) {
		i.Warnings = append(i.Warnings, fmt.Sprintf("the old certificate is not of authority %q: its names are kept, see that they are right: %s", i.signer.Certificate.Subject, strings.Join(i.allNames(), ", ")))
	}
}

func (i *Item) allNames() []string {
	all := slices.Clone(i.DNSNames)
	for _, a := range i.Addresses {
		all = append(all, a.String())
	}
	for _, u := range i.URIs {
		all = append(all, u.String())
	}
	return append(all, i.Emails...)
}

// dial tells what a kubeconfig dials and whom it trusts: what it says, or what
// its like on the node says.
func (p *planner) dial(i *Item, k *trust.Kubeconfig) error {
	local := []string{"scheduler.conf", "controller-manager.conf", "kubelet.conf"}
	people := []string{"admin.conf", "super-admin.conf", "kube-proxy.conf", "kubelet.conf", "scheduler.conf", "controller-manager.conf"}
	like := people
	if slices.Contains(local, i.Name) {
		like = append(local, people...)
	}
	i.Cluster, i.User, i.Server = k.Cluster, k.User, k.Server
	if i.Cluster == "" {
		i.Cluster = catalog.DefaultClusterName
	}
	if i.User == "" {
		i.User = p.entry(&trust.Credential{Name: i.Name, Node: i.Node, Certificate: k.Place}).User
	}
	if i.User == "" {
		i.User = i.Subject.CommonName
	}
	for _, name := range like {
		if !isURL(i.Server) {
			i.Server = p.serverOf(i.Node, name)
		}
	}
	if n := p.node(i.Node); !isURL(i.Server) && p.advertised(n).IsValid() {
		port := "6443"
		if a := apiserver(n); a != nil {
			if v, ok := a.Flag("secure-port"); ok {
				port = v
			}
		}
		i.Server = "https://" + net.JoinHostPort(p.advertised(n).String(), port)
	}
	if !isURL(i.Server) {
		i.Server = p.Server
	}
	if !isURL(i.Server) {
		return &Refusal{i.ID(), "no file tells where its apiserver is", "give --server https://HOST:PORT"}
	}
	if k.Insecure || !k.CA.IsZero() && k.CA.Field == "" {
		return nil
	}
	return p.anchors(i, k)
}

// anchors are the apiserver's authority as its own file has it, and those of the
// old bundle that verify an apiserver still: during a rotation there are such.
func (p *planner) anchors(i *Item, k *trust.Kubeconfig) error {
	own := p.serverAuthority(i.Node)
	if own == nil {
		return &Refusal{i.ID(), "the certificate of the apiserver's authority cannot be read", "restore it first: kubepki verify names it"}
	}
	i.Anchors = slices.Clone(own.Certificates)
	m := p.g.Material(k.CA)
	if !m.OK() {
		return nil
	}
	for _, a := range m.Certificates {
		same := func(o *x509.Certificate) bool {
			return bytes.Equal(o.RawSubject, a.RawSubject) && trust.SameKey(o.PublicKey, a.PublicKey)
		}
		if !slices.ContainsFunc(i.Anchors, same) && !p.At.After(a.NotAfter) && p.verifiesAServer(a) {
			i.Anchors = append(i.Anchors, a)
		}
	}
	return nil
}

func (p *planner) verifiesAServer(a *x509.Certificate) bool {
	return slices.ContainsFunc(p.apiservers, func(l *x509.Certificate) bool { return p.judgement.SignedBy(l, a) })
}

// serverAuthority is the anchor of a node's apiserver: the root where the
// authority is below one.
func (p *planner) serverAuthority(node string) *trust.Material {
	if n := p.node(node); n != nil && n.Layout == catalog.LayoutUsers {
		for i := range p.g.Nodes { // it has none of its own
			if o := &p.g.Nodes[i]; apiserver(o) != nil && o.Layout != catalog.LayoutUsers {
				node = o.Name
				break
			}
		}
	}
	for _, name := range []string{catalog.RootCA, catalog.ClusterCA} {
		for _, a := range p.authorities[node] {
			if m := p.g.Material(a.Certificate); a.Name == name && m.OK() && len(m.Certificates) > 0 {
				return m
			}
		}
	}
	// In other layouts it has another name: it is the one that signed what is served.
	for _, a := range p.authorities[node] {
		m := p.g.Material(a.Certificate)
		if slices.ContainsFunc(certificatesOf(m), p.verifiesAServer) {
			return m
		}
	}
	return nil
}

// sign finds the authority that signs, with its key.
func (p *planner) sign(i *Item, cred *trust.Credential, e catalog.Entry) error {
	var why error
	for _, a := range p.issuers(i, cred, e) {
		m, key := p.g.Material(a.Certificate), p.Keys(a.Key)
		if p.Elsewhere && m.OK() && len(m.Certificates) > 0 {
			return p.signElsewhere(i, cred, a)
		}
		switch at := slices.IndexFunc(certificatesOf(m), func(c *x509.Certificate) bool { return key != nil && trust.SameKey(c.PublicKey, key.Public()) }); {
		case at >= 0:
			i.Issuer = a.Certificate
			i.signer = issue.Authority{Certificate: m.Certificates[at], Key: key, Chain: issue.ChainOf(m.Certificates[at:])}
			if err := i.signer.Usable(p.At); err != nil {
				return &Refusal{i.ID(), err.Error(), helpOf(a.Name, i.signer.Certificate, p.At)}
			}
			return nil
		case why != nil:
		case !m.OK() || len(m.Certificates) == 0:
			why = &Refusal{i.ID(), fmt.Sprintf("its authority %s cannot be read", a.Certificate), "restore it first, from a backup or another control-plane node: made anew it would fit nothing that is there"}
		case key == nil && denied(p.g.Material(a.Key)):
			why = &Refusal{i.ID(), fmt.Sprintf("the key of its authority, %s, may not be read", a.Key), "run it again with sudo"}
		case key == nil:
			why = &Refusal{i.ID(), fmt.Sprintf("the key of its authority, %s, is not at hand", a.Key), "run it where the key is: on a control-plane node, or with --root NAME=DIR for that node too; what a worker's kubelet needs makes kubepki kubeconfig node NAME there; where it signs elsewhere --csr-only makes requests, and --ca-key names a key that kubepki-kms holds"}
		default:
			why = &Refusal{i.ID(), fmt.Sprintf("%s does not belong to %s: what it signs nobody verifies", a.Key, a.Certificate), "restore the pair of the authority first: kubepki verify says which half is wrong"}
		}
	}
	if why == nil {
		why = &Refusal{i.ID(), "its authority is not known here", "make it where its authority is: kubepki issue"}
	}
	return why
}

// helpOf tells what to do about an authority that may not sign.
func helpOf(name string, c *x509.Certificate, at time.Time) string {
	if at.After(c.NotAfter) {
		return RecoverHelp
	}
	return "an authority is certified again with the key that it has by: kubepki renew " + name
}

func denied(m *trust.Material) bool { return m != nil && m.State == trust.Denied }

func certificatesOf(m *trust.Material) []*x509.Certificate {
	if !m.OK() {
		return nil
	}
	return m.Certificates
}

// issuers are the authorities that may sign: the one on its own node that the
// layout says signs it, or else the role's, then the same one of other nodes; for a role or an authority that the catalog does not
// know the one that signed the old certificate.
func (p *planner) issuers(i *Item, cred *trust.Credential, e catalog.Entry) []trust.Authority {
	name := p.signerName(i, cred, e)
	is := func(a trust.Authority) bool {
		if name != "" {
			return a.Name == name
		}
		return p.signed(a, i.Old)
	}
	var own []trust.Authority
	for _, a := range p.authorities[i.Node] {
		if is(a) {
			own = append(own, a)
		}
	}
	// Of other nodes' those count that can sign; without any one of them says why not.
	for _, o := range p.withKey {
		if o.Node != i.Node && is(o) && (len(own) == 0 || p.sameAuthority(own[0], o)) {
			own = append(own, o)
		}
	}
	if same := p.named[name]; len(own) == 0 && len(same) > 0 {
		own = append(own, same[0])
	}
	return own
}

// signerName is the name of the authority that is to sign: the layout's word, the
// role's, and where neither knows one and none here signed the old certificate, what
// the names of credentials tell. Empty where the old certificate tells it.
func (p *planner) signerName(i *Item, cred *trust.Credential, e catalog.Entry) string {
	known := func(name string) bool { return len(p.named[name]) > 0 }
	if name := catalog.SignerOf(p.authorities[cred.Node], cred); name != "" {
		return name
	}
	if len(e.Authorities) > 0 && known(e.Authorities[0]) {
		return e.Authorities[0]
	}
	signed := func(a trust.Authority) bool { return p.signed(a, i.Old) }
	if slices.ContainsFunc(p.authorities[i.Node], signed) || slices.ContainsFunc(p.withKey, signed) {
		return ""
	}
	switch {
	case strings.HasPrefix(cred.Name, "etcd-"), strings.HasSuffix(cred.Name, "-etcd-client"):
		if known(catalog.EtcdCA) {
			return catalog.EtcdCA
		}
	case strings.HasPrefix(cred.Name, "front-proxy"):
		return catalog.FrontProxyCA
	}
	return catalog.ClusterCA
}

// signed tells whether an authority signed a certificate, which may be nil.
func (p *planner) signed(a trust.Authority, leaf *x509.Certificate) bool {
	return leaf != nil && slices.ContainsFunc(certificatesOf(p.g.Material(a.Certificate)), func(c *x509.Certificate) bool { return p.judgement.SignedBy(leaf, c) })
}

// sameAuthority tells whether two files hold a certificate of one key.
func (p *planner) sameAuthority(a, b trust.Authority) bool {
	mine, theirs := certificatesOf(p.g.Material(a.Certificate)), certificatesOf(p.g.Material(b.Certificate))
	return slices.ContainsFunc(mine, func(c *x509.Certificate) bool {
		return slices.ContainsFunc(theirs, func(o *x509.Certificate) bool { return trust.SameKey(c.PublicKey, o.PublicKey) })
	})
}
