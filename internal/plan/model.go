package plan

import (
	"crypto/x509"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// copyOf is what one process holds of what stands at one place: the file may
// say something else by now. Objects of the API are copies too, of what the
// processes that publish them hold.
type copyOf struct {
	use

	sources []int // copies that it is taken from; nil: its place
	merges  bool  // it adds what its sources hold, and takes nothing away
	signers []int // copies of role signer that may renew it at any time
	target  int   // index of the authority that is replaced; -1: another's

	may []set // what it may hold now; empty: not in use
	// disk is what may stand at its place: what was written, or renewed since.
	disk []set
	// sure tells that it is known to hold what stands at its place.
	sure bool
	// moved tells that it is read by a flag that was changed, and ownFile that
	// this was to give the signer a file of its own.
	moved, ownFile bool
	broken         bool // a signer that cannot sign, and could not before the plan
}

// The roles of copies that are not trust.RoleBundle or trust.RoleCertificate.
const (
	roleSigner = trust.RoleAuthority // certificate or key that signs
	roleTokens = trust.RoleKey       // of tokens in use
)

const requestHeaderFlag = "requestheader-client-ca-file"

// publisher stands for whoever publishes an object of the API.
const publisher = "publisher"

// Objects of the API that carry trust. Sources: k/k
// pkg/controlplane/controller/clusterauthenticationtrust (merges, never takes
// away), pkg/controller/certificates/rootcacertpublisher (replaces).
var (
	rootCAObject    = trust.Place{Path: "/api/v1/namespaces/*/configmaps/kube-root-ca.crt", Field: "ca.crt"}
	requestHeaderCA = trust.Place{Path: "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", Field: "requestheader-client-ca-file"}
	clientCA        = trust.Place{Path: "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", Field: "client-ca-file"}
)

// half is one half of a link between copies: what is shown by one, judged by
// what the others trust together.
type half struct {
	Half
	shown  int
	trusts []int
	broken bool // does not hold, and did not before the plan
	// virtual halves are of what a signer may hand out next; the graph has no
	// link for them.
	virtual bool
}

// model is a cluster with what each process may hold.
type model struct {
	g        *trust.Graph
	r        *Rotation
	anchors  *anchors
	targets  []target
	files    map[trust.Place]Content
	copies   []copyOf
	halves   []half
	unjudged int
	stage    Kind // the last step that has begun; empty: none

	byUse    map[use]int
	byAt     map[use][]int         // setting left empty
	byPlace  map[trust.Place][]int // indices of copies
	known    map[halfKey]bool
	ownFiles map[trust.Place]bool // of the authorities
}

// use is what makes a copy one: a process reads a file for each setting anew.
type use struct {
	component string
	place     trust.Place
	role      trust.Role
	setting   string
}

type halfKey struct {
	Half
	shown, trusts int
}

// find returns the copy of a use, made when there is none yet.
func (m *model) find(component string, place trust.Place, role trust.Role, setting string) int {
	u := use{component, place, role, setting}
	i, ok := m.byUse[u]
	if !ok {
		i = len(m.copies)
		m.copies = append(m.copies, copyOf{use: u, target: -1})
		m.byUse[u] = i
		u.setting = ""
		m.byAt[u] = append(m.byAt[u], i)
		m.byPlace[place] = append(m.byPlace[place], i)
	}
	return i
}

// matching are the copies of a component at a place, one at least. A setting
// narrows them down when it is known.
func (m *model) matching(component string, place trust.Place, role trust.Role, setting string) []int {
	if i, ok := m.byUse[use{component, place, role, setting}]; ok {
		return []int{i}
	}
	if all := m.byAt[use{component, place, role, ""}]; len(all) > 0 {
		return all
	}
	return []int{m.find(component, place, role, setting)}
}

// components makes a copy for each setting of each component that names a
// credential or a bundle, also where no link of the graph needs it.
func (m *model) components() {
	for i := range m.g.Nodes {
		n := &m.g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			for _, u := range catalog.FlagUses(c.Name) {
				for _, v := range c.Flags[u.Flag] {
					if path.IsAbs(v) {
						m.use(n, c, u, trust.Place{Node: n.Name, Path: path.Clean(v)})
					}
				}
			}
		}
	}
}

func (m *model) use(n *trust.Node, c *trust.Component, u catalog.FlagUse, at trust.Place) {
	switch {
	case u.Role == catalog.RoleKubeconfig:
		for i := range n.Kubeconfigs {
			if k := &n.Kubeconfigs[i]; k.Place == at {
				m.kubeconfig(c.ID(), k)
			}
		}
	case u.Role == trust.RoleAuthority:
		m.find(c.ID(), at, roleSigner, u.Flag)
	case u.Role == trust.RoleKey && strings.HasPrefix(u.Flag, "service-account-"):
		m.find(c.ID(), at, roleSigner, u.Flag)
	case u.Role != trust.RoleKey:
		m.find(c.ID(), at, u.Role, u.Flag)
	}
}

func (m *model) kubeconfig(component string, k *trust.Kubeconfig) {
	setting := func(p trust.Place, embedded, path string) string {
		if p.File() == k.Place {
			return embedded
		}
		return path
	}
	if !k.CA.IsZero() {
		m.find(component, k.CA, trust.RoleBundle, setting(k.CA, SettingEmbeddedCA, SettingCAPath))
	}
	if !k.Certificate.IsZero() {
		m.find(component, k.Certificate, trust.RoleCertificate, setting(k.Certificate, SettingEmbeddedCertificate, SettingCertificatePath))
	}
}

// authorityKeys makes a copy for each authority whose key is at hand: whoever
// renews a certificate on that node signs with it.
func (m *model) authorityKeys() {
	for _, a := range m.g.Authorities {
		if k := m.g.Material(a.Key); k.OK() && len(k.Keys) > 0 {
			m.find(m.signerID(a.Node), a.Key, roleSigner, "")
		}
	}
}

func (m *model) signerID(node string) string {
	c := trust.Component{Node: node, Name: "renewal"}
	return c.ID()
}

// links makes the halves of all links.
func (m *model) links() {
	for i := range m.g.Links {
		l := &m.g.Links[i]
		if h := l.Server; h != nil {
			if h.Unverified || h.Bundle == nil || m.g.Unseen(h.Credential, h.Bundle) {
				m.unjudged++
			} else {
				m.half(l, "server", l.Callee, h.Credential, l.Caller, h.Bundle)
			}
		}
		if h := l.Client; h != nil {
			if h.Bundle == nil || m.g.Unseen(h.Credential, h.Bundle) {
				m.unjudged++
			} else {
				m.half(l, "client", l.Caller, h.Credential, l.Callee, h.Bundle)
			}
		}
		m.tokens(l)
	}
}

// half adds the halves between all copies that a link is about.
func (m *model) half(l *trust.Link, side, shower string, shown *trust.Credential, judge string, by *trust.Bundle) {
	setting := ""
	if flag, ok := strings.CutPrefix(by.Setting.Field, "--"); ok {
		setting = flag
	}
	for _, s := range m.matching(shower, shown.Certificate, trust.RoleCertificate, "") {
		for _, b := range m.judges(judge, by.Anchors, setting) {
			m.addHalf(half{Half: Half{l.Number, l.Caller, l.Callee, side}, shown: s, trusts: []int{b}})
		}
		// An object may be deleted and made anew from the file at any time.
		if file, ok := m.byUse[use{shower, by.Anchors, trust.RoleBundle, requestHeaderFlag}]; ok && judge == extensionAPIServer {
			m.addHalf(half{Half: Half{l.Number, l.Caller, l.Callee, side}, shown: s, trusts: []int{file}})
		}
	}
}

// judges are the copies that a caller or callee judges by. Pods and extension
// apiservers read objects of the API.
func (m *model) judges(component string, anchors trust.Place, setting string) []int {
	switch component {
	case pods:
		return []int{m.find(pods, rootCAObject, trust.RoleBundle, SettingRootCA)}
	case extensionAPIServer:
		return []int{m.find(extensionAPIServer, requestHeaderCA, trust.RoleBundle, SettingAuthentication)}
	}
	return m.matching(component, anchors, trust.RoleBundle, setting)
}

func (m *model) addHalf(h half) {
	key := halfKey{h.Half, h.shown, h.trusts[0]}
	if !m.known[key] {
		m.known[key] = true
		m.halves = append(m.halves, h)
	}
}

// objects makes the copies that the API carries, and who reads them.
func (m *model) objects() {
	m.carried(rootCAObject, false, catalog.ControllerManager, "root-ca-file", pods, SettingRootCA)
	m.carried(requestHeaderCA, true, catalog.APIServer, requestHeaderFlag, extensionAPIServer, SettingAuthentication)
	m.carried(clientCA, true, catalog.APIServer, "client-ca-file", extensionAPIServer, SettingAuthentication)
	// Pods dial any apiserver, not only that of their publisher's node.
	for i := range m.halves {
		if h := m.halves[i]; h.Link == 4 {
			for _, b := range m.readers(pods) {
				m.addHalf(half{Half: Half{17, pods, h.Callee, h.Side}, shown: h.shown, trusts: []int{b}})
			}
		}
	}
}

func (m *model) carried(object trust.Place, merges bool, component, setting, reader, as string) {
	var sources []int
	for i := range m.copies {
		if c := &m.copies[i]; componentName(c.component) == component && c.setting == setting {
			sources = append(sources, i)
		}
	}
	if len(sources) == 0 {
		return
	}
	o := m.find(publisher, object, trust.RoleBundle, "")
	m.copies[o].sources, m.copies[o].merges = sources, merges
	b := m.find(reader, object, trust.RoleBundle, as)
	m.copies[b].sources = []int{o}
}

func (m *model) readers(component string) []int {
	var all []int
	for i := range m.copies {
		if m.copies[i].component == component {
			all = append(all, i)
		}
	}
	return all
}

// tokens are link 12. A half is verified by all the files of its verifier
// together. Tokens that were handed out live on beside the key that signs.
func (m *model) tokens(l *trust.Link) {
	if l.Signing == nil || len(l.Signing.VerifyBy) == 0 {
		return
	}
	var by []int
	for _, p := range l.Signing.VerifyBy {
		by = append(by, m.matching(l.Callee, p, trust.RoleVerifyKeys, "")...)
	}
	inUse := m.find(tokenBearers, trust.Place{Path: tokensPath}, roleTokens, SettingTokens)
	for _, s := range m.matching(l.Caller, l.Signing.Key, roleSigner, "") {
		if !slices.Contains(m.copies[inUse].signers, s) {
			m.copies[inUse].signers = append(m.copies[inUse].signers, s)
		}
		m.addHalf(half{Half: Half{l.Number, l.Caller, l.Callee, "client"}, shown: s, trusts: by})
		m.addHalf(half{Half: Half{l.Number, tokenBearers, l.Callee, "client"}, shown: inUse, trusts: by})
	}
}

// tokensPath is where the API hands out tokens.
const tokensPath = "/api/v1/namespaces/*/serviceaccounts/*/token"

// handedOut are halves of what a signer of the certificates API may hand out
// next: it must be trusted wherever such certificates are shown.
func (m *model) handedOut() {
	for i := range m.copies {
		s := m.copies[i]
		flag, ok := strings.CutPrefix(s.setting, "cluster-signing-")
		if !ok {
			continue
		}
		judge := "client-ca-file"
		if strings.HasPrefix(flag, "kubelet-serving-") {
			judge = "kubelet-certificate-authority"
		}
		for j := range m.copies {
			if b := &m.copies[j]; componentName(b.component) == catalog.APIServer && b.setting == judge {
				m.addHalf(half{Half: Half{0, "bearers of certificates that " + s.component + " signs", b.component, "client"}, shown: i, trusts: []int{j}, virtual: true})
			}
		}
	}
}

// renewals connects each credential with the signers that may renew it: the
// authority's key on the same node, and for kubelets those of the API.
func (m *model) renewals() {
	var ofAPI []int
	byHand := map[string][]int{} // by component
	for i := range m.copies {
		switch s := &m.copies[i]; {
		case s.role != roleSigner || signsTokens(s):
		case s.setting == "":
			byHand[s.component] = append(byHand[s.component], i)
		default:
			ofAPI = append(ofAPI, i)
		}
	}
	for i := range m.copies {
		c := &m.copies[i]
		if c.role != trust.RoleCertificate || c.target < 0 {
			continue
		}
		signers := byHand[m.signerID(c.place.Node)]
		if componentName(c.component) == catalog.Kubelet {
			signers = append(slices.Clone(signers), ofAPI...)
		}
		for _, s := range signers {
			if m.copies[s].target == c.target {
				c.signers = append(c.signers, s)
			}
		}
	}
}

// content is what stands at a place; false when nothing is known of it.
func (m *model) content(p trust.Place) (Content, bool) {
	if c, ok := m.files[p]; ok {
		return c, true
	}
	t := m.g.Material(p)
	if !t.OK() {
		return Content{}, false
	}
	return Content{Certificates: t.Certificates, Keys: t.Keys}, true
}

// holds is the set of a content in the eyes of a copy: what it trusts by, or
// by what it is trusted.
func (m *model) holds(c *copyOf, x Content) set {
	switch {
	case x.IssuedBy != nil:
		return m.anchors.reachIssued(x.IssuedBy)
	case c.role == trust.RoleCertificate:
		return m.anchors.reach(x.Certificates)
	case c.role == roleSigner && c.setting == "":
		return m.byKey(x)
	case c.role == trust.RoleVerifyKeys || c.role == roleSigner && len(x.Certificates) == 0:
		return m.anchors.setOf(nil, x.Keys)
	}
	return m.anchors.setOf(x.Certificates, nil)
}

// byKey is what a leaf reaches that is signed with the key of an authority.
func (m *model) byKey(x Content) set {
	var s set
	for _, c := range m.withKey(x) {
		by := oldAuthority(c)
		for i := range m.targets {
			if t := &m.targets[i]; c.Equal(t.newBy.Certificate) {
				by = t.newBy
			}
		}
		s = s.with(m.anchors.reachIssued(&by))
	}
	return s.with(m.anchors.setOf(nil, x.Keys))
}

// learn teaches the anchors all certificates of authorities that stand anywhere.
func (m *model) learn() {
	for _, p := range slices.SortedFunc(maps.Keys(m.g.Materials), trust.Place.Compare) {
		t := m.g.Materials[p]
		if !t.OK() {
			continue
		}
		certificates := t.Certificates
		if t.Role == trust.RoleCertificate || t.Role == trust.RoleCombined {
			certificates = certificates[min(1, len(certificates)):]
		}
		m.anchors.learn(certificates)
	}
	for _, name := range slices.Sorted(maps.Keys(m.r.New)) {
		by := m.r.New[name]
		if by.Certificate != nil {
			m.anchors.learn([]*x509.Certificate{by.Certificate})
		}
		m.anchors.learn(by.Chain)
	}
}

// newModel reads a cluster and what shall be replaced in it.
func newModel(g *trust.Graph, r *Rotation) (*model, error) {
	if len(r.New) == 0 && r.NewKey == nil {
		return nil, errors.New("nothing to replace: give the certificate of at least one new authority, or a new service-account key")
	}
	m := &model{
		g: g, r: r, anchors: newAnchors(), files: map[trust.Place]Content{}, known: map[halfKey]bool{}, ownFiles: map[trust.Place]bool{},
		byUse: map[use]int{}, byAt: map[use][]int{}, byPlace: map[trust.Place][]int{},
	}
	for _, a := range g.Authorities {
		m.ownFiles[a.Certificate] = true
	}
	m.learn()
	m.components()
	m.authorityKeys()
	m.links()
	m.objects()
	if err := m.aim(); err != nil {
		return nil, err
	}
	if err := m.assign(); err != nil {
		return nil, err
	}
	m.handedOut()
	m.renewals()
	m.begin()
	for i := range m.halves {
		_, m.halves[i].broken = m.refused(&m.halves[i])
	}
	for i := range m.copies {
		c := &m.copies[i]
		c.broken = slices.ContainsFunc(c.may, func(s set) bool { return unusable(c, s) })
	}
	return m, nil
}
