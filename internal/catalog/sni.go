package catalog

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// sniPair is one value of --tls-sni-cert-key: CERTIFICATE,KEY[:NAME,…] (k/k
// staging/src/k8s.io/component-base/cli/flag/namedcertkey_flag.go).
type sniPair struct {
	certificate, key string
	names            []string // none: those in the certificate
}

func sniPairs(c *trust.Component) []sniPair {
	var all []sniPair
	for _, v := range c.Flags[sniFlag] {
		files, names, named := strings.Cut(v, ":")
		pair := strings.Split(files, ",")
		if len(pair) != 2 {
			continue
		}
		p := sniPair{certificate: strings.TrimSpace(pair[0]), key: strings.TrimSpace(pair[1])}
		for name := range strings.SplitSeq(names, ",") {
			if named {
				p.names = append(p.names, strings.ToLower(strings.TrimSpace(name)))
			}
		}
		if path.IsAbs(p.certificate) && path.IsAbs(p.key) {
			all = append(all, p)
		}
	}
	return all
}

const (
	sniFlag   = "tls-sni-cert-key"
	sniSuffix = "-sni" // of the names of such credentials
)

// isSNI tells whether a callee shows a pair that is asked for by name: who dials
// its address, as a probe does, is shown another.
func isSNI(h *trust.ServerHalf) bool {
	return h != nil && h.Credential != nil && strings.HasSuffix(h.Credential.Name, sniSuffix)
}

// sniFiles are the files of all pairs of a node.
func sniFiles(n *trust.Node) []FileUse {
	var files []FileUse
	for i := range n.Components {
		for _, p := range sniPairs(&n.Components[i]) {
			files = append(files, FileUse{Path: path.Clean(p.certificate), Role: trust.RoleCertificate}, FileUse{Path: path.Clean(p.key), Role: trust.RoleKey})
		}
	}
	return files
}

// sniCredentials are the credentials of a component's pairs, in their order.
func (w *wirer) sniCredentials(n *trust.Node, c *trust.Component, name string) []*trust.Credential {
	var all []*trust.Credential
	for _, p := range sniPairs(c) {
		at := func(file string) trust.Place { return trust.Place{Node: n.Name, Path: path.Clean(file)} }
		all = append(all, w.credentialAt(name, n.Name, at(p.certificate), at(p.key), server))
	}
	return all
}

// servingAt returns what an apiserver shows to who asks it for a name: a pair
// that is given for the name, the first before others, else one whose
// certificate holds it; whole names before those with a star; else its usual
// one. An address is asked for by nobody, so it counts only where a pair is
// given for it (k8s.io/apiserver pkg/server/dynamiccertificates/named_certificates.go).
func (w *wirer) servingAt(n *trust.Node, c *trust.Component, name string) *trust.Credential {
	pairs := sniPairs(c)
	if len(pairs) == 0 {
		return w.serving(n, c)
	}
	credentials := w.sniCredentials(n, c, "apiserver"+sniSuffix)
	name = strings.ToLower(name)
	forms := []string{name}
	if _, err := netip.ParseAddr(name); err != nil {
		if _, rest, ok := strings.Cut(name, "."); ok {
			forms = append(forms, "*."+rest)
		}
	}
	for _, form := range forms {
		for i, p := range pairs {
			if slices.Contains(p.names, form) {
				return credentials[i]
			}
		}
		for i, p := range pairs {
			leaf := w.g.Material(credentials[i].Certificate).Leaf()
			if len(p.names) > 0 || leaf == nil {
				continue
			}
			if slices.ContainsFunc(append(leaf.DNSNames, leaf.Subject.CommonName), func(s string) bool { return strings.EqualFold(s, form) }) {
				return credentials[i]
			}
		}
	}
	return w.serving(n, c)
}

// served are names with the credential that answers to them.
type served struct {
	credential *trust.Credential
	names      []string
}

// byServing groups names by the credential that an apiserver shows for them. The
// usual one comes first, with or without a name.
func (w *wirer) byServing(n *trust.Node, c *trust.Component, names []string) []served {
	all := []served{{credential: w.serving(n, c)}}
	for _, name := range names {
		cred := w.servingAt(n, c, name)
		i := slices.IndexFunc(all, func(s served) bool { return s.credential == cred })
		if i < 0 {
			i = len(all)
			all = append(all, served{credential: cred})
		}
		all[i].names = append(all[i].names, name)
	}
	return all
}

// sniLinks are what any client asks an apiserver's further pairs for: the names
// that they are given for, and those at which the apiserver is reached. Who
// verifies them is not known: such names are mostly for clients elsewhere.
func (w *wirer) sniLinks(n *trust.Node, c *trust.Component, reached []served) {
	names := map[*trust.Credential][]string{}
	for _, s := range reached {
		names[s.credential] = s.names
	}
	pairs := sniPairs(c)
	for i, cred := range w.sniCredentials(n, c, "apiserver"+sniSuffix) {
		asked := names[cred]
		for _, name := range pairs[i].names {
			if !strings.HasPrefix(name, "*.") && w.servingAt(n, c, name) == cred {
				asked = append(asked, name)
			}
		}
		slices.Sort(asked)
		w.link(trust.Link{Number: 4, Caller: "any client", Callee: c.ID(), Server: &trust.ServerHalf{Credential: cred, Names: unique(asked)}})
	}
}
