package check

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// authorityShared is judged by effect: does a client certificate of the
// cluster's authority pass where only the front proxy, or only etcd's clients,
// may?
func authorityShared(c *Case) []Finding {
	var out []Finding
	for _, w := range []struct {
		component, flag string
		severity        Severity
		strangers       func(trust.Link) bool // links whose clients should not pass
		beside          func(trust.Link) bool // whom it must admit too, nil: nobody
		cause           string
	}{
		{"kube-apiserver", "requestheader-client-ca-file", Error, ofCluster, nil, "%s admits %s as front proxy: a client of the cluster may speak for any user"},
		{"etcd", "trusted-ca-file", Warning, ofCluster, nil, "%s admits %s: every client of the cluster may read and write all of etcd"},
		{"kube-apiserver", "client-ca-file", Error, func(l trust.Link) bool { return l.Number == aggregation }, ofCluster, "%s admits %s as a client: whoever signs for the front proxy signs users of the cluster too"},
		{"kube-apiserver", "client-ca-file", Warning, func(l trust.Link) bool { return l.Number == 3 || l.Number == 15 }, ofCluster, "%s admits %s: whoever signs for etcd signs users of the cluster too"},
	} {
		c.components(w.component, func(p *trust.Component) {
			at, ok := p.Flag(w.flag)
			anchors := trust.Place{Node: p.Node, Path: at}
			intruder := c.intruder(anchors, w.strangers)
			if !ok || intruder == nil || w.beside != nil && c.intruder(anchors, w.beside) == nil {
				return
			}
			f := Finding{Severity: w.severity, Cause: fmt.Sprintf(w.cause, base(at), named(intruder.Certificate)), Fix: "give each of the two an authority of its own", needs: []trust.Place{p.Setting(w.flag), anchors}, cascade: w.severity == Error}
			f = c.byCommonRoot(f, intruder)
			places := []trust.Place{anchors}
			if a := c.authority("ca", p.Node); a != nil && a.Certificate != anchors {
				places, f.shown = append(places, a.Certificate), []trust.Place{a.Certificate}
			}
			out = mergeShared(out, f.at(places...))
		})
	}
	return out
}

// ofCluster are the links whose clients are of the cluster's authority.
func ofCluster(l trust.Link) bool { return l.Number >= 5 && l.Number <= 9 || l.Number == 11 }

// mergeShared adds a finding unless one says the same of two authorities already:
// one that is shared is shared both ways.
func mergeShared(all []Finding, f Finding) []Finding {
	for i := range all {
		if all[i].Severity == f.Severity && all[i].Path == f.Path {
			break
		}
		if all[i].Severity == f.Severity && slices.ContainsFunc(all[i].places, func(p trust.Place) bool { return slices.Contains(f.places, p) }) {
			return all
		}
	}
	return mergeSame(all, f)
}

// mergeSame joins findings of one authority on several nodes.
func mergeSame(all []Finding, f Finding) []Finding {
	for i := range all {
		if all[i].Severity == f.Severity && all[i].Path == f.Path {
			node := all[i].Node
			all[i].shown = append(all[i].shown, f.shown...)
			all[i] = all[i].at(append(all[i].places, f.places...)...)
			all[i].Node = node
			return all
		}
	}
	return append(all, f)
}

// intruder returns a client of some links that a bundle admits, of its own node
// before others. Only a client that its own authority signed counts.
func (c *Case) intruder(anchors trust.Place, of func(trust.Link) bool) *trust.Credential {
	m := c.Material(anchors)
	if !m.OK() {
		return nil
	}
	var other *trust.Credential
	asked := map[*trust.Credential]bool{}
	for _, l := range c.Links {
		if !of(l) || l.Client == nil || l.Client.Credential == nil {
			continue
		}
		if asked[l.Client.Credential] {
			continue
		}
		asked[l.Client.Credential] = true
		chain := c.Material(l.Client.Credential.Certificate)
		if chain.Leaf() == nil || c.signer(c.authorityFor(l.Client.Credential), chain.Leaf(), anchors.Node) == nil || !admits(m.Certificates, chain.Certificates) {
			continue
		}
		if l.Client.Credential.Node == anchors.Node {
			return l.Client.Credential
		}
		other = cmp.Or(other, l.Client.Credential)
	}
	return other
}

// admits tells whether anchors verify a client's chain, dates aside.
func admits(anchors, chain []*x509.Certificate) bool {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: chain[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, a := range anchors {
		o.Roots.AddCert(a)
		if a.NotBefore.After(o.CurrentTime) {
			o.CurrentTime = a.NotBefore
		}
	}
	for _, i := range chain[1:] {
		o.Intermediates.AddCert(i)
	}
	_, err := chain[0].Verify(o)
	return err == nil
}

// clientCAs are the flags without which a server verifies no client, and the
// flag of etcd that demands certificates all the same.
var clientCAs = []struct{ component, ca, demand, urls, cause string }{
	{"etcd", "trusted-ca-file", "client-cert-auth", "listen-client-urls", "etcd verifies no client certificate (--trusted-ca-file is not set): whoever reaches it may read every Secret"},
	{"etcd", "peer-trusted-ca-file", "peer-client-cert-auth", "listen-peer-urls", "etcd verifies no peer certificate (--peer-trusted-ca-file is not set): whoever reaches it may join"},
	{"kube-apiserver", "client-ca-file", "", "", "kube-apiserver verifies no client certificate (--client-ca-file is not set)"},
}

func clientAuthOff(c *Case) []Finding {
	out := c.withoutClientCA(func(demands bool) bool { return !demands })
	c.components("kubelet", func(p *trust.Component) {
		_, ca := p.Flag("client-ca-file")
		_, tokens := p.Flag("authentication-token-webhook")
		if p.Source.IsZero() || ca || !tokens {
			return // one that says nothing of authentication was not written by hand
		}
		f := Finding{Cause: "the kubelet verifies no client certificate (authentication.x509.clientCAFile is not set), so that it takes the apiserver for a stranger",
			Fix: c.kubeletClients(p)}
		out = append(out, f.at(p.Source.In("authentication.x509.clientCAFile")))
	})
	return out
}

// flagConflict: etcd then verifies clients with the authorities of the machine
// (client/pkg/transport/listener.go), and refuses all of the cluster's.
func flagConflict(c *Case) []Finding {
	out := c.withoutClientCA(func(demands bool) bool { return demands })
	for i := range out {
		out[i].Cause = fmt.Sprintf("etcd demands certificates, but %s is not set: it knows only the authorities of the machine, and refuses every caller", out[i].Field)
	}
	return slices.Concat(out, c.leafAsBundle(), c.leafSigns(), c.otherKind(), c.halfPairs(), conflicts(c))
}

// leafAsBundle: a flag for authorities names a certificate of another role, which
// verifies nobody.
func (c *Case) leafAsBundle() []Finding {
	var out []Finding
	for _, g := range c.ofClass(misplaced, byPlace) {
		b := c.Breaks[g[0].at]
		f := c.finding(g, []trust.Place{b.Bundle.Setting, b.Bundle.Anchors},
			fmt.Sprintf("%s names %s, which is a certificate and not an authority: it verifies nobody", b.Bundle.Setting.Field, base(b.Bundle.Anchors.Path)), "")
		if g[0].own != nil {
			f.Fix = setFlag(b.Bundle.Setting, b.Bundle.Setting.Field, g[0].own.Certificate.Path)
		}
		f.cascade = true
		out = append(out, f)
	}
	return out
}

// withoutClientCA lists the servers that name no authority for clients; pick
// chooses by whether they demand a certificate.
func (c *Case) withoutClientCA(pick func(demands bool) bool) []Finding {
	var out []Finding
	for _, f := range clientCAs {
		c.components(f.component, func(p *trust.Component) {
			ca, _ := p.Flag(f.ca)
			demand, _ := p.Flag(f.demand)
			if ca != "" || p.Source.IsZero() || !pick(isTrue(demand)) || withoutTLS(p, f.urls) {
				return
			}
			at := p.Setting(f.ca)
			finding := Finding{Cause: f.cause, Fix: c.clientCAFix(p, f.ca)}
			out = append(out, finding.at(at))
		})
	}
	return out
}

// withoutTLS tells whether a server speaks without TLS at all of its URLs: that is
// the fault then (plain-http), and not that nobody shows it a certificate.
func withoutTLS(p *trust.Component, flag string) bool {
	urls, ok := p.Flag(flag)
	return ok && !strings.Contains(urls, "https:") && !strings.Contains(urls, "unixs:")
}

// isTrue reads a boolean flag as pflag and etcd's package flag do.
func isTrue(value string) bool {
	on, err := strconv.ParseBool(value)
	return err == nil && on
}

func verifyOff(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for _, k := range c.Nodes[i].Kubeconfigs {
			if !k.Insecure {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("%s does not verify "+leadsTo(k)+": anybody in between may read its credential and its traffic", base(k.Place.Path)),
				Fix: c.verifyServer(k)}
			out = append(out, f.at(k.Place.In("clusters["+k.Cluster+"].cluster.insecure-skip-tls-verify")))
		}
	}
	return out
}

// etcdURLs are the flags whose URLs carry keys and values.
var etcdURLs = []string{"listen-client-urls", "advertise-client-urls", "listen-peer-urls", "initial-advertise-peer-urls"}

func plainHTTP(c *Case) []Finding {
	var out []Finding
	c.components("etcd", func(p *trust.Component) {
		for _, flag := range etcdURLs {
			out = append(out, plainURL(p, flag)...)
		}
	})
	c.components("kube-apiserver", func(p *trust.Component) { out = append(out, plainURL(p, "etcd-servers")...) })
	out = append(out, plainRemotes(c)...)
	for i := range c.Nodes {
		for _, k := range c.Nodes[i].Kubeconfigs {
			if u, err := url.Parse(k.Server); err == nil && u.Scheme == "http" {
				f := Finding{Cause: fmt.Sprintf("%s reaches %s without TLS (%s)", base(k.Place.Path), leadsTo(k), u.Host), Fix: setCluster(k.Place, k.Cluster, "--server=https"+strings.TrimPrefix(k.Server, "http")), Severity: plainSeverity(u)}
				out = append(out, f.at(k.Place.In(k.ServerField)))
			}
		}
	}
	return out
}

// plainSeverity: what stays on the machine is only a warning.
func plainSeverity(u *url.URL) Severity {
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsLoopback() || u.Hostname() == "localhost" {
		return Warning
	}
	return Error
}

// plainURL is one finding for a flag: of the URL that opens most.
func plainURL(p *trust.Component, flag string) []Finding {
	value, _ := p.Flag(flag)
	var worst []Finding
	for raw := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Scheme != "http" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("--%s of %s speaks without TLS (%s)", flag, p.Name, u.Host), Fix: useHTTPS(p, flag), Severity: plainSeverity(u)}
		if len(worst) == 0 || f.Severity.rank() < worst[0].Severity.rank() {
			worst = []Finding{f.at(p.Setting(flag))}
		}
	}
	return worst
}

// flagged makes a finding of each component of a name whose flag is bad.
func (c *Case) flagged(component, flag string, bad func(string) bool, cause, fix string) []Finding {
	var out []Finding
	c.components(component, func(p *trust.Component) {
		if v, ok := p.Flag(flag); ok && bad(v) && !p.Source.IsZero() {
			f := Finding{Cause: cause, Fix: fix}
			if component == "kubelet" {
				f.Fix = kubeletFix(p.Setting(flag), flag, fix)
			}
			out = append(out, f.at(p.Setting(flag)))
		}
	})
	return out
}

func staticTokenFile(c *Case) []Finding {
	out := c.flagged("kube-apiserver", "token-auth-file", func(v string) bool { return v != "" },
		"kube-apiserver accepts tokens from a file: they never expire, and a change needs a restart", "")
	for i := range out {
		out[i].Fix = know(dropFlag(out[i].places[0], "token-auth-file"), "give who uses them service-account tokens or certificates first: kubepki kubeconfig user NAME")
	}
	return out
}

func anonymousOn(c *Case) []Finding {
	out := c.flagged("kubelet", "anonymous-auth", isTrue,
		"the kubelet answers anonymous requests", "set authentication.anonymous.enabled: false in the kubelet's configuration")
	c.components("kube-apiserver", func(p *trust.Component) {
		if v, _ := p.Flag("anonymous-auth"); isTrue(v) && alwaysAllow(p) {
			out = append(out, Finding{Cause: "kube-apiserver answers anonymous requests, and lets them do everything", Fix: setFlag(p.Setting("authorization-mode"), "authorization-mode", "Node,RBAC")}.at(p.Setting("anonymous-auth")))
		}
	})
	return out
}

// alwaysAllow tells whether an apiserver authorizes everything, as it does when
// it is told nothing (k/k pkg/kubeapiserver/options/authorization.go, Complete).
func alwaysAllow(p *trust.Component) bool {
	v, set := p.Flag("authorization-mode")
	if _, file := p.Flag("authorization-config"); !set {
		return !file && !p.Source.IsZero()
	}
	return slices.Contains(strings.Split(v, ","), "AlwaysAllow")
}

func authorizationOpen(c *Case) []Finding {
	out := c.flagged("kubelet", "authorization-mode", func(v string) bool { return v == "AlwaysAllow" },
		"the kubelet lets every authenticated client do everything", "set authorization.mode: Webhook in the kubelet's configuration")
	out = append(out, c.flagged("kubelet", "read-only-port", func(v string) bool { return v != "0" && v != "" },
		"the kubelet serves a read-only port without TLS and without authentication", "set readOnlyPort: 0 in the kubelet's configuration")...)
	c.components("kube-apiserver", func(p *trust.Component) {
		if alwaysAllow(p) {
			f := Finding{Cause: "kube-apiserver lets every client do everything", Fix: putFlag(p, "authorization-mode", "Node,RBAC")}
			if _, set := p.Flag("authorization-mode"); !set {
				f.Cause += ": without --authorization-mode and --authorization-config its mode is AlwaysAllow"
			} else if file := p.Setting("authorization-mode"); file.File() != p.Source {
				f.Fix = "take the authorizer AlwaysAllow out of " + file.Path
			}
			out = append(out, f.at(p.Setting("authorization-mode")))
		}
	})
	return out
}

// signingSigners are the signers whose certificates must pass as clients.
var signingSigners = []string{"", "kube-apiserver-client-", "kubelet-client-"}

// allSigners are all signers that the controller-manager has flags for.
var allSigners = append(slices.Clone(signingSigners), "kubelet-serving-", "legacy-unknown-")

func signerNotSingle(c *Case) []Finding {
	var out []Finding
	c.components("kube-controller-manager", func(p *trust.Component) {
		for _, s := range allSigners {
			flag := "cluster-signing-" + s + "cert-file"
			v, _ := p.Flag(flag)
			m := c.Material(trust.Place{Node: p.Node, Path: v})
			if v == "" || !m.OK() || len(m.Certificates) < 2 {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("--%s names %s, which holds %d certificates: kube-controller-manager signs only with exactly one", flag, base(v), len(m.Certificates)),
				Fix: c.singleSigner(p, flag)}
			out = mergeFinding(out, f.at(m.Place))
		}
	})
	return out
}

func signerUntrusted(c *Case) []Finding {
	var out []Finding
	c.components("kube-controller-manager", func(p *trust.Component) {
		for _, s := range signingSigners {
			flag := "cluster-signing-" + s + "cert-file"
			v, _ := p.Flag(flag)
			m := c.Material(trust.Place{Node: p.Node, Path: v})
			if v == "" || m.Leaf() == nil {
				continue
			}
			c.components("kube-apiserver", func(q *trust.Component) {
				ca, _ := q.Flag("client-ca-file")
				anchors := c.Material(trust.Place{Node: q.Node, Path: ca})
				if q.Node != p.Node || !anchors.OK() || len(anchors.Certificates) == 0 || hasKeyOf(anchors, m.Leaf()) || c.admitsAuthority(anchors.Certificates, m.Leaf()) {
					return
				}
				f := Finding{Cause: fmt.Sprintf("kube-controller-manager signs with %s, which is not in --client-ca-file (%s): what it signs is refused", base(v), base(ca)),
					Fix: c.trustSigner(m.Place, flag, v), needs: []trust.Place{m.Place, anchors.Place, q.Setting("client-ca-file"), p.Setting(flag)}}
				out = mergeFinding(out, f.at(p.Setting(flag), m.Place))
			})
		}
	})
	return out
}

// trustSigner is the mend of an untrusted signer: an authority of another role
// must never come into the bundle of clients.
func (c *Case) trustSigner(signer trust.Place, flag, file string) string {
	if a := c.ownFile(signer); a != nil && a.Name != "ca" && a.Name != "kubelet-ca" {
		if right := c.authority("ca", signer.Node); right != nil {
			return c.signWith(signer.Node, flag, right)
		}
	}
	return sh("kubepki", "trust", "add", "kube-apiserver/client-ca-file", file, "--separate", "--yes")
}

// admitsAuthority tells whether an anchor signed the authority itself.
func (c *Case) admitsAuthority(anchors []*x509.Certificate, authority *x509.Certificate) bool {
	return slices.ContainsFunc(anchors, func(a *x509.Certificate) bool { return c.signed(authority, a) })
}

// saIssuerMismatch: most apiservers are right, those that differ from them are not.
func saIssuerMismatch(c *Case) []Finding {
	var all []*trust.Component
	c.components("kube-apiserver", func(p *trust.Component) {
		if !p.Source.IsZero() && len(p.Flags["service-account-issuer"]) > 0 {
			all = append(all, p)
		}
	})
	agree := func(a, b *trust.Component) bool {
		x, y := a.Flags["service-account-issuer"], b.Flags["service-account-issuer"]
		return slices.Contains(x, y[0]) && slices.Contains(y, x[0])
	}
	var most *trust.Component
	votes := 0
	for _, p := range all {
		n := 0
		for _, q := range all {
			if agree(p, q) {
				n++
			}
		}
		if n > votes {
			most, votes = p, n
		}
	}
	var out []Finding
	for _, p := range all {
		if agree(p, most) {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("kube-apiserver of %s issues tokens as %s, that of %s as %s: each refuses the other's", p.Node, p.Flags["service-account-issuer"][0], most.Node, most.Flags["service-account-issuer"][0]),
			Fix: issuerFix(p, p.Flags["service-account-issuer"][0], most.Flags["service-account-issuer"][0])}
		out = append(out, f.at(p.Setting("service-account-issuer"), most.Setting("service-account-issuer")))
	}
	return out
}

func bootstrapLeftover(c *Case) []Finding {
	var out []Finding
	c.components("kubelet", func(p *trust.Component) {
		boot, _ := p.Flag("bootstrap-kubeconfig")
		conf, _ := p.Flag("kubeconfig")
		if boot == "" || !c.kubeconfigPresent(p.Node, boot) || !c.kubeconfigPresent(p.Node, conf) {
			return
		}
		f := Finding{Cause: fmt.Sprintf("%s is still there, though the node has joined: its token may let others join", base(boot)), Fix: sh("shred", "-u", boot)}
		out = append(out, f.at(trust.Place{Node: p.Node, Path: boot}))
	})
	return out
}

func (c *Case) kubeconfigPresent(node, at string) bool {
	for i := range c.Nodes {
		if slices.ContainsFunc(c.Nodes[i].Kubeconfigs, func(k trust.Kubeconfig) bool {
			return k.Place == trust.Place{Node: node, Path: at} && k.State == trust.Present
		}) {
			return true
		}
	}
	return false
}

// verifiesKubelets tells whether any apiserver is set up to verify kubelets.
func (c *Case) verifiesKubelets() bool {
	found := false
	c.components("kube-apiserver", func(p *trust.Component) {
		v, _ := p.Flag("kubelet-certificate-authority")
		found = found || v != ""
	})
	return found
}

// selfMade tells whether the kubelet made the certificate itself, with an
// authority that it forgot at once (k8s.io/client-go/util/cert,
// GenerateSelfSignedCertKey names it NODE-ca@TIME).
func selfMade(leaf *x509.Certificate) bool {
	return trust.SignedBy(leaf, leaf) || catalog.SelfMadeIssuer(leaf.Issuer.CommonName)
}

func kubeletServingSelfSigned(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if cred.Name != "kubelet-server" || leaf == nil || !selfMade(leaf) {
			continue
		}
		f := Finding{Cause: "the kubelet serves a certificate that it signed itself, which nobody can verify", Fix: "set serverTLSBootstrap: true in the kubelet's configuration and approve its request"}
		if c.verifiesKubelets() {
			f.Severity = Warning
		}
		if c.authority("kubelet-ca", cred.Node) != nil {
			f.Fix = renew(cred.Certificate.Path)
		}
		f = f.at(cred.Certificate)
		out = append(out, c.withBreaks(f, func(b Break) bool { return b.Credential == cred }))
	}
	return out
}

// kubeletUnverified is one info for all control planes.
func kubeletUnverified(c *Case) []Finding {
	var places []trust.Place
	c.components("kube-apiserver", func(p *trust.Component) {
		if _, ok := p.Flag("kubelet-certificate-authority"); !ok && !p.Source.IsZero() {
			places = append(places, p.Setting("kubelet-certificate-authority"))
		}
	})
	if len(places) == 0 {
		return nil
	}
	f := Finding{Cause: "kube-apiserver does not verify kubelets (--kubelet-certificate-authority is not set, as kubeadm leaves it)",
		Fix: "set --kubelet-certificate-authority, and serverTLSBootstrap in the kubelets' configuration; kubepki init --kubelet-authority makes an authority for kubelets"}
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if cred.Name == "kubelet-server" && leaf != nil && !selfMade(leaf) && c.issuer(cred.Node, leaf) != nil {
			f.Severity = Warning
			f.Cause = fmt.Sprintf("kube-apiserver does not verify kubelets (--kubelet-certificate-authority is not set), though they serve certificates that it could verify (%s)", base(cred.Certificate.Path))
			f.Fix = c.verifyKubelets(places[0].Node, c.issuer(cred.Node, leaf).Name, len(places) > 1)
		}
	}
	return []Finding{f.at(places...)}
}
