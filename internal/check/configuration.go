package check

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// authorityShared is judged by effect: does a client certificate of the
// cluster's authority pass where only the front proxy, or only etcd's clients,
// may?
func authorityShared(c *Case) []Finding {
	var out []Finding
	add := func(component, flag string, s Severity, cause string) {
		c.components(component, func(p *trust.Component) {
			at, ok := p.Flag(flag)
			anchors := trust.Place{Node: p.Node, Path: at}
			intruder := c.intruder(anchors)
			if !ok || intruder == nil {
				return
			}
			f := Finding{Severity: s, Cause: fmt.Sprintf(cause, base(at), named(intruder.Certificate)), Fix: "give each of the two an authority of its own", needs: []trust.Place{p.Source.In("--" + flag), anchors}, cascade: s == Error}
			f = c.byCommonRoot(f, intruder)
			places := []trust.Place{anchors}
			if a := c.authority("ca", p.Node); a != nil {
				places = append(places, a.Certificate)
			}
			out = mergeSame(out, f.at(places...))
		})
	}
	add("kube-apiserver", "requestheader-client-ca-file", Error, "%s admits %s as front proxy: a client of the cluster may speak for any user")
	add("etcd", "trusted-ca-file", Warning, "%s admits %s: every client of the cluster may read and write all of etcd")
	return out
}

// mergeSame joins findings of one authority on several nodes.
func mergeSame(all []Finding, f Finding) []Finding {
	for i := range all {
		if all[i].Severity == f.Severity && all[i].Path == f.Path {
			node := all[i].Node
			all[i] = all[i].at(append(all[i].places, f.places...)...)
			all[i].Node = node
			return all
		}
	}
	return append(all, f)
}

// intruder returns a client of the cluster's authority that a bundle admits,
// one of its own node before others.
func (c *Case) intruder(anchors trust.Place) *trust.Credential {
	m := c.Material(anchors)
	if !m.OK() {
		return nil
	}
	var other *trust.Credential
	asked := map[*trust.Credential]bool{}
	for _, l := range c.Links {
		ofCluster := l.Number >= 5 && l.Number <= 9 || l.Number == 11
		if !ofCluster || l.Client == nil || l.Client.Credential == nil {
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
	return c.withoutClientCA(func(demands bool) bool { return !demands })
}

// flagConflict: etcd then verifies clients with the authorities of the machine
// (client/pkg/transport/listener.go), and refuses all of the cluster's.
func flagConflict(c *Case) []Finding {
	out := c.withoutClientCA(func(demands bool) bool { return demands })
	for i := range out {
		out[i].Cause = fmt.Sprintf("etcd demands certificates, but %s is not set: it knows only the authorities of the machine, and refuses every caller", out[i].Field)
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
			if ca != "" || p.Source.IsZero() || !pick(demand == "true") || withoutTLS(p, f.urls) {
				return
			}
			at := p.Setting(f.ca)
			finding := Finding{Cause: f.cause, Fix: fmt.Sprintf("set %s in %s", at.Field, at.Path)}
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

func verifyOff(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for _, k := range c.Nodes[i].Kubeconfigs {
			if !k.Insecure {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("%s does not verify the apiserver: anybody in between may read its credential and its traffic", base(k.Place.Path)),
				Fix: fmt.Sprintf("kubectl config --kubeconfig %s set-cluster %s --insecure-skip-tls-verify=false --certificate-authority=/etc/kubernetes/pki/ca.crt --embed-certs=true", k.Place.Path, k.Cluster)}
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
	for i := range c.Nodes {
		for _, k := range c.Nodes[i].Kubeconfigs {
			if u, err := url.Parse(k.Server); err == nil && u.Scheme == "http" {
				f := Finding{Cause: fmt.Sprintf("%s reaches the apiserver without TLS (%s)", base(k.Place.Path), u.Host), Fix: "use https in " + k.ServerField, Severity: plainSeverity(u)}
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

func plainURL(p *trust.Component, flag string) []Finding {
	value, _ := p.Flag(flag)
	for raw := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Scheme != "http" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("--%s of %s speaks without TLS (%s)", flag, p.Name, u.Host), Fix: fmt.Sprintf("use https in --%s", flag), Severity: plainSeverity(u)}
		return []Finding{f.at(p.Setting(flag))}
	}
	return nil
}

// flagged makes a finding of each component of a name whose flag is bad.
func (c *Case) flagged(component, flag string, bad func(string) bool, cause, fix string) []Finding {
	var out []Finding
	c.components(component, func(p *trust.Component) {
		if v, ok := p.Flag(flag); ok && bad(v) && !p.Source.IsZero() {
			out = append(out, Finding{Cause: cause, Fix: fix}.at(p.Setting(flag)))
		}
	})
	return out
}

func staticTokenFile(c *Case) []Finding {
	return c.flagged("kube-apiserver", "token-auth-file", func(v string) bool { return v != "" },
		"kube-apiserver accepts tokens from a file: they never expire, and a change needs a restart", "use service-account tokens or certificates, and drop --token-auth-file")
}

func anonymousOn(c *Case) []Finding {
	out := c.flagged("kubelet", "anonymous-auth", func(v string) bool { return v == "true" },
		"the kubelet answers anonymous requests", "set authentication.anonymous.enabled: false in the kubelet's configuration")
	c.components("kube-apiserver", func(p *trust.Component) {
		if v, _ := p.Flag("anonymous-auth"); v == "true" && alwaysAllow(p) {
			out = append(out, Finding{Severity: Error, Cause: "anonymous users may do everything", Fix: "set --authorization-mode=Node,RBAC"}.at(p.Source.In("--anonymous-auth")))
		}
	})
	return out
}

func alwaysAllow(p *trust.Component) bool {
	v, _ := p.Flag("authorization-mode")
	return slices.Contains(strings.Split(v, ","), "AlwaysAllow")
}

func authorizationOpen(c *Case) []Finding {
	out := c.flagged("kubelet", "authorization-mode", func(v string) bool { return v == "AlwaysAllow" },
		"the kubelet lets every authenticated client do everything", "set authorization.mode: Webhook in the kubelet's configuration")
	out = append(out, c.flagged("kubelet", "read-only-port", func(v string) bool { return v != "0" && v != "" },
		"the kubelet serves a read-only port without TLS and without authentication", "set readOnlyPort: 0 in the kubelet's configuration")...)
	c.components("kube-apiserver", func(p *trust.Component) {
		if alwaysAllow(p) {
			out = append(out, Finding{Cause: "kube-apiserver lets every client do everything", Fix: "set --authorization-mode=Node,RBAC"}.at(p.Source.In("--authorization-mode")))
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
				Fix: fmt.Sprintf("keep only the signing authority's certificate in a file of its own and name it in --%s", flag)}
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
				if q.Node != p.Node || !anchors.OK() || len(anchors.Certificates) == 0 || hasKeyOf(anchors, m.Leaf()) || admitsAuthority(anchors.Certificates, m.Leaf()) {
					return
				}
				f := Finding{Cause: fmt.Sprintf("kube-controller-manager signs with %s, which is not in --client-ca-file (%s): what it signs is refused", base(v), base(ca)),
					Fix: c.trustSigner(m.Place, flag, v, ca), needs: []trust.Place{m.Place, anchors.Place, q.Source.In("--client-ca-file"), p.Source.In("--" + flag)}}
				out = mergeFinding(out, f.at(p.Source.In("--"+flag), m.Place))
			})
		}
	})
	return out
}

// trustSigner is the mend of an untrusted signer: an authority of another role
// must never come into the bundle of clients.
func (c *Case) trustSigner(signer trust.Place, flag, file, bundle string) string {
	if a := c.ownFile(signer); a != nil && a.Name != "ca" && a.Name != "kubelet-ca" {
		if right := c.authority("ca", signer.Node); right != nil {
			return fmt.Sprintf("set --%s to %s, and its key with it", flag, right.Certificate.Path)
		}
	}
	return fmt.Sprintf("add %s to a copy of %s, and name that in --client-ca-file", file, bundle)
}

// admitsAuthority tells whether an anchor signed the authority itself.
func admitsAuthority(anchors []*x509.Certificate, authority *x509.Certificate) bool {
	return slices.ContainsFunc(anchors, func(a *x509.Certificate) bool { return trust.SignedBy(authority, a) })
}

func saIssuerMismatch(c *Case) []Finding {
	var first *trust.Component
	var out []Finding
	c.components("kube-apiserver", func(p *trust.Component) {
		if p.Source.IsZero() || len(p.Flags["service-account-issuer"]) == 0 {
			return
		}
		if first == nil {
			first = p
			return
		}
		a, b := first.Flags["service-account-issuer"], p.Flags["service-account-issuer"]
		if slices.Contains(a, b[0]) && slices.Contains(b, a[0]) {
			return
		}
		f := Finding{Cause: fmt.Sprintf("kube-apiserver of %s issues tokens as %s, that of %s as %s: each refuses the other's", first.Node, a[0], p.Node, b[0]),
			Fix: "give --service-account-issuer the same first value everywhere, and list the other as a second"}
		out = append(out, f.at(p.Source.In("--service-account-issuer"), first.Source.In("--service-account-issuer")))
	})
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
		f := Finding{Cause: fmt.Sprintf("%s is still there, though the node has joined: its token may let others join", base(boot)), Fix: "shred -u " + boot}
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
			places = append(places, p.Source.In("--kubelet-certificate-authority"))
		}
	})
	if len(places) == 0 {
		return nil
	}
	f := Finding{Cause: "kube-apiserver does not verify kubelets (--kubelet-certificate-authority is not set, as kubeadm leaves it)",
		Fix: "kubepki init --kubelet-authority makes an authority for kubelets, or set serverTLSBootstrap and --kubelet-certificate-authority"}
	return []Finding{f.at(places...)}
}
