package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
)

// identityFlags say what a certificate shall hold.
type identityFlags struct {
	role, cn            string
	orgs, sans, usages  []string
	privileged          bool
	validity, algorithm string
}

func (f *identityFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.role, "role", "", "server, client, peer (both), node (a kubelet) or user")
	flags.StringVar(&f.cn, "cn", "", "common name (default: by role, or the request's)")
	flags.Var((*texts)(&f.orgs), "org", "organization, which Kubernetes takes for a group (repeatable)")
	flags.Var((*texts)(&f.orgs), "group", "the same as --org")
	flags.StringSliceVar(&f.sans, "san", nil, "subject alternative name: DNS name, IP address or URI (repeatable)")
	flags.StringSliceVar(&f.usages, "usage", nil, "extended usages instead of a role: server, client")
	flags.BoolVar(&f.privileged, "allow-privileged", false, "allow the groups that may do everything, and a request's system: identities")
	addKeyFlags(flags, &f.validity, &f.algorithm)
}

// texts is the value of several flags that add to one list: those of pflag
// would each begin it anew.
type texts []string

// Set adds a value.
func (t *texts) Set(value string) error { *t = append(*t, value); return nil }

// String joins the values for help texts.
func (t *texts) String() string { return strings.Join(*t, ",") }

// Type names the values in help texts.
func (t *texts) Type() string { return "string" }

func addKeyFlags(flags *pflag.FlagSet, validity, algorithm *string) {
	flags.StringVar(validity, "validity", "8760h", "life of the certificate, like 720h or 30d; never past its authority's end")
	flags.StringVar(algorithm, "key-algorithm", "RSA-2048", "RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384 or Ed25519")
}

// wanted is what a certificate will hold, and what of the request it will not.
type wanted struct {
	subject pkix.Name
	names   names
	usages  []x509.ExtKeyUsage
	leftOut []string
}

// names are subject alternative names.
type names struct {
	dns       []string
	addresses []netip.Addr
	uris      []*url.URL
}

func (n names) empty() bool { return len(n.dns)+len(n.addresses)+len(n.uris) == 0 }

func (n names) all() []string {
	all := slices.Clone(n.dns)
	for _, a := range n.addresses {
		all = append(all, a.String())
	}
	for _, u := range n.uris {
		all = append(all, u.String())
	}
	return all
}

// roles gives the usages of each role.
var roles = map[string][]x509.ExtKeyUsage{
	"server": {x509.ExtKeyUsageServerAuth},
	"client": {x509.ExtKeyUsageClientAuth},
	"peer":   {x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	"node":   {x509.ExtKeyUsageClientAuth},
	"user":   {x509.ExtKeyUsageClientAuth},
}

// privilegedGroups may do everything: the first is hard-wired in the API
// server, the second is bound by kubeadm.
var privilegedGroups = []string{"system:masters", catalog.AdminGroup}

const (
	nodePrefix = "system:node:"
	nodeGroup  = "system:nodes"
)

// want joins flags and request, the flags first. name is the NAME of the
// command line, asked is nil without a request.
func (f *identityFlags) want(name string, asked *issue.Asked) (*wanted, error) {
	w := &wanted{}
	var err error
	if w.usages, err = f.wantUsages(asked, w); err != nil {
		return nil, err
	}
	if w.names, err = f.wantNames(asked, w); err != nil {
		return nil, err
	}
	if err := f.wantSubject(name, asked, w); err != nil {
		return nil, err
	}
	if slices.Contains(w.usages, x509.ExtKeyUsageServerAuth) && w.names.empty() {
		return nil, advise(usagef("--san: a server's certificate needs at least one name or address"), "clients look for the name that they dial among the SANs: add --san %s", name)
	}
	if w.subject.CommonName == "" && w.names.empty() {
		return nil, usagef("--cn: the certificate would have neither a common name nor a SAN")
	}
	return w, f.refusePrivileged(w, asked)
}

func (f *identityFlags) wantUsages(asked *issue.Asked, w *wanted) ([]x509.ExtKeyUsage, error) {
	var usages []x509.ExtKeyUsage
	switch {
	case f.role != "" && len(f.usages) > 0:
		return nil, usagef("--role sets the usages, and --usage too: give one of them")
	case f.role != "":
		var ok bool
		if usages, ok = roles[f.role]; !ok {
			return nil, usagef("--role %q is none of server, client, peer, node and user", f.role)
		}
	case len(f.usages) > 0:
		for _, u := range f.usages {
			known, ok := map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth}[u]
			if !ok {
				return nil, usagef("--usage %q is neither server nor client", u)
			}
			usages = append(usages, known)
		}
	case asked != nil && len(asked.Usages) > 0:
		return asked.Usages, nil
	case asked != nil:
		return nil, usagef("--role: the request asks for no extended usage: say what the certificate is for")
	default:
		return nil, usagef("--role: say what the certificate is for: server, client, peer, node or user (or --usage)")
	}
	if asked != nil {
		for _, u := range asked.Usages {
			if !slices.Contains(usages, u) {
				w.leftOut = append(w.leftOut, "extended usage "+issue.UsageName(u))
			}
		}
	}
	return usages, nil
}

func (f *identityFlags) wantNames(asked *issue.Asked, w *wanted) (names, error) {
	if len(f.sans) > 0 {
		return parseNames(f.sans)
	}
	if asked == nil {
		return names{}, nil
	}
	n := names{addresses: asked.Addresses, uris: asked.URIs}
	for _, d := range asked.DNSNames {
		n.dns = append(n.dns, strings.ToLower(d))
		if strings.HasPrefix(d, "*") {
			return names{}, advise(fmt.Errorf("the request asks for the wildcard name %q", d), "to grant it, say so: --san '%s'", d)
		}
	}
	if err := config.CheckNames("the request's DNS names", n.dns); err != nil {
		return names{}, err
	}
	for _, u := range n.uris {
		if err := checkURI(u); err != nil {
			return names{}, fmt.Errorf("the request's URI %q %w", u.Redacted(), err)
		}
	}
	if (f.role == "node" || f.role == "user") && !n.empty() {
		w.leftOut = append(w.leftOut, "names "+strings.Join(n.all(), ", "))
		return names{}, nil
	}
	return n, nil
}

// parseNames reads the values of --san.
func parseNames(values []string) (names, error) {
	var n names
	for _, v := range values {
		switch {
		case strings.Contains(v, "://"):
			u, err := url.Parse(v)
			if err != nil {
				return n, usagef("--san: what starts with %q is not a URI", v[:strings.Index(v, "://")+3])
			}
			if err := checkURI(u); err != nil {
				return n, usagef("--san %q %w", u.Redacted(), err)
			}
			n.uris = append(n.uris, u)
		case strings.Contains(v, "@"):
			return n, usagef("--san %q is an e-mail address, which no component reads: use a DNS name, an IP address or a URI", v)
		default:
			lower := strings.ToLower(v)
			if err := config.CheckNames("--san", []string{lower}); err != nil {
				return n, usageError{err}
			}
			dns, addresses := catalog.SplitNames([]string{lower})
			if len(addresses) > 0 && addresses[0].Zone() != "" {
				return n, usagef("--san %q has a zone, which a certificate cannot hold", v)
			}
			n.dns, n.addresses = append(n.dns, dns...), append(n.addresses, addresses...)
		}
	}
	return n, nil
}

// checkURI refuses what no identity has; of SPIFFE IDs it asks what section
// 2 of their specification does.
func checkURI(u *url.URL) error {
	switch {
	case u.Scheme == "" || u.Host == "" || u.Opaque != "":
		return errors.New("needs a scheme and a host, like spiffe://example.test/ns/default/sa/web")
	case u.User != nil:
		return errors.New("must not hold a user or password")
	case u.Scheme == "spiffe" && (u.RawQuery != "" || u.Fragment != "" || u.Port() != "" || strings.HasSuffix(u.Path, "/")):
		return errors.New("is no SPIFFE ID: it has a port, query or fragment, or ends with /")
	}
	return nil
}

func (f *identityFlags) wantSubject(name string, asked *issue.Asked, w *wanted) error {
	if asked != nil {
		w.subject = asked.Subject
		w.subject.Names, w.subject.ExtraNames = nil, nil
	} else {
		w.subject.CommonName = name
	}
	switch {
	case f.role == "node" && (f.cn != "" || len(f.orgs) > 0):
		return usagef("--cn, --org: --role node sets both: leave them out, or use --role client")
	case f.role == "node":
		return f.wantNode(name, asked, w)
	}
	if f.cn != "" {
		w.subject.CommonName = f.cn
	}
	if len(f.orgs) > 0 {
		w.subject.Organization = f.orgs
	}
	for _, text := range append([]string{w.subject.CommonName}, w.subject.Organization...) {
		if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }) {
			return usagef("--cn, --org: %q is no plain text", text)
		}
	}
	return nil
}

// wantNode gives the identity of a kubelet, which a request must then ask for.
func (f *identityFlags) wantNode(name string, asked *issue.Asked, w *wanted) error {
	node := strings.TrimPrefix(name, nodePrefix)
	if dns, _ := catalog.SplitNames([]string{node}); len(dns) == 0 || strings.HasPrefix(node, "*") || config.CheckNames("NAME", dns) != nil {
		return usagef("NAME %q is not a node name: lower-case letters, digits, - and . (RFC 1123)", node)
	}
	if asked != nil && (asked.Subject.CommonName != nodePrefix+node || !slices.Equal(asked.Subject.Organization, []string{nodeGroup})) {
		return fmt.Errorf("the request asks for %q, a certificate of node %s has CN=%s%s and O=%s alone", asked.Subject, node, nodePrefix, node, nodeGroup)
	}
	w.subject = pkix.Name{CommonName: nodePrefix + node, Organization: []string{nodeGroup}}
	return nil
}

// refusePrivileged refuses groups that may do everything, and identities of
// Kubernetes' own that stand in a request without a flag naming them.
func (f *identityFlags) refusePrivileged(w *wanted, asked *issue.Asked) error {
	if f.privileged {
		return nil
	}
	const hint = "if that is meant, add --allow-privileged"
	for _, o := range w.subject.Organization {
		if slices.Contains(privilegedGroups, o) {
			return advise(fmt.Errorf("group %s may do everything in the cluster", o), hint)
		}
	}
	if asked == nil || f.role == "node" {
		return nil
	}
	if f.cn == "" && strings.HasPrefix(w.subject.CommonName, "system:") {
		return advise(fmt.Errorf("the request asks for an identity of Kubernetes' own: CN=%s", w.subject.CommonName), hint)
	}
	for _, o := range w.subject.Organization {
		if len(f.orgs) == 0 && strings.HasPrefix(o, "system:") {
			return advise(fmt.Errorf("the request asks for a group of Kubernetes' own: O=%s", o), hint)
		}
	}
	return nil
}

// template returns what is to be signed, from now on.
func (w *wanted) template(now time.Time, validity time.Duration) issue.Template {
	t := issue.Template{
		Subject: w.subject, DNSNames: w.names.dns, URIs: w.names.uris, Usages: w.usages,
		NotBefore: now.Add(-issue.Backdate).UTC(), NotAfter: now.Add(validity).UTC(),
	}
	for _, a := range w.names.addresses {
		t.Addresses = append(t.Addresses, net.IP(a.AsSlice()))
	}
	return t
}
