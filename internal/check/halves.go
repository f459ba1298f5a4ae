package check

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// flagPairs are the flags of which a component takes both or none: with one alone it
// does not start (k8s.io/apiserver pkg/server/options/serving.go and etcd
// client/pkg/transport/listener.go load the pair), or does half of its work.
var flagPairs = []struct{ component, one, other string }{
	{"kube-apiserver", "tls-cert-file", "tls-private-key-file"},
	{"kube-apiserver", "kubelet-client-certificate", "kubelet-client-key"},
	{"kube-apiserver", "etcd-certfile", "etcd-keyfile"},
	{"kube-apiserver", "proxy-client-cert-file", "proxy-client-key-file"},
	{"kube-apiserver", "proxy-client-cert-file", "requestheader-client-ca-file"},
	{"kube-controller-manager", "tls-cert-file", "tls-private-key-file"},
	{"kube-controller-manager", "cluster-signing-cert-file", "cluster-signing-key-file"},
	{"kube-scheduler", "tls-cert-file", "tls-private-key-file"},
	{"etcd", "cert-file", "key-file"},
	{"etcd", "peer-cert-file", "peer-key-file"},
}

// halfPairs: one flag of a pair is set, the other is not.
func (c *Case) halfPairs() []Finding {
	var out []Finding
	for _, p := range flagPairs {
		c.components(p.component, func(k *trust.Component) {
			one, _ := k.Flag(p.one)
			other, _ := k.Flag(p.other)
			if k.Source.IsZero() || (one == "") == (other == "") {
				return
			}
			set, missing := p.one, p.other
			if one == "" {
				set, missing = p.other, p.one
			}
			if set == "requestheader-client-ca-file" {
				return // who lets a front proxy in need not be one
			}
			f := Finding{Cause: fmt.Sprintf("--%s of %s is set, and --%s is not: it needs both", set, k.Name, missing), Fix: c.addHalf(k, set, missing)}
			out = append(out, f.at(k.Setting(missing)))
		})
	}
	return append(out, c.serveNothing()...)
}

// addHalf names the other half of a pair: the file beside the one that is named, or
// the front proxy's authority.
func (c *Case) addHalf(p *trust.Component, set, missing string) string {
	if missing == "requestheader-client-ca-file" {
		return c.authorityFix(p, missing, "front-proxy-ca")
	}
	v, _ := p.Flag(set)
	for ext, other := range map[string]string{".crt": ".key", ".key": ".crt"} {
		if rest, ok := strings.CutSuffix(v, ext); ok {
			return addFlag(p, missing, rest+other)
		}
	}
	return fmt.Sprintf("set %s%s", settingName(p.Setting(missing), missing), in(p.Setting(missing)))
}

// addEtcdPair names kubeadm's pair beside etcd's authority.
func (c *Case) addEtcdPair(p *trust.Component, cert, key string) string {
	name := map[string]string{"cert-file": "server", "peer-cert-file": "peer"}[cert]
	for _, a := range c.Authorities {
		if a.Node == p.Node && a.Name == "etcd-ca" {
			pair := path.Join(path.Dir(a.Certificate.Path), name)
			return both(addFlag(p, cert, pair+".crt"), addFlag(p, key, pair+".key"))
		}
	}
	return fmt.Sprintf("set %s and %s%s", settingName(p.Setting(cert), cert), settingName(p.Setting(key), key), in(p.Setting(cert)))
}

// serveNothing: etcd is to speak TLS, and has no certificate for it.
func (c *Case) serveNothing() []Finding {
	var out []Finding
	c.components("etcd", func(p *trust.Component) {
		for _, s := range []struct{ urls, cert, key, auto string }{
			{"listen-client-urls", "cert-file", "key-file", "auto-tls"},
			{"listen-peer-urls", "peer-cert-file", "peer-key-file", "peer-auto-tls"},
		} {
			urls, _ := p.Flag(s.urls)
			cert, _ := p.Flag(s.cert)
			key, _ := p.Flag(s.key)
			auto, _ := p.Flag(s.auto)
			if p.Source.IsZero() || cert != "" || key != "" || isTrue(auto) || !speaksTLS(urls) {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("--%s of etcd asks for TLS, and --%s and --%s are not set", s.urls, s.cert, s.key), Fix: c.addEtcdPair(p, s.cert, s.key)}
			out = append(out, f.at(p.Setting(s.cert)))
		}
	})
	return out
}

func speaksTLS(urls string) bool {
	return slices.ContainsFunc(strings.Split(urls, ","), func(raw string) bool {
		u, err := url.Parse(strings.TrimSpace(raw))
		return err == nil && u.Scheme == "https"
	})
}

// verifiesByMachine: an apiserver that is told no authority for etcd takes the
// machine's, which did not sign etcd's certificate.
func (c *Case) verifiesByMachine() []Finding {
	var out []Finding
	c.components("kube-apiserver", func(p *trust.Component) {
		ca, _ := p.Flag("etcd-cafile")
		cert, _ := p.Flag("etcd-certfile")
		servers, _ := p.Flag("etcd-servers")
		if p.Source.IsZero() || ca != "" || cert == "" || !speaksTLS(servers) {
			return
		}
		f := Finding{Links: []int{3}, Cause: "--etcd-cafile is not set: kube-apiserver verifies etcd with the authorities of the machine, which sign no etcd of a cluster",
			Fix: c.authorityFix(p, "etcd-cafile", "etcd-ca")}
		out = append(out, f.at(p.Setting("etcd-cafile")))
	})
	return out
}

// renamedAuthority: the certificate of an authority has the right key and another
// name, by one letter or by its encoding, so that it is not found for what it signed
// (crypto/x509 compares the names byte for byte).
func (c *Case) renamedAuthority() []Finding {
	var out []Finding
	for _, g := range c.ofClass(renamed, func(f trustFault) string { return f.own.Certificate.String() }) {
		own := g[0].own.Certificate
		leaf := c.Material(c.Breaks[g[0].at].Credential.Certificate).Leaf()
		cause := fmt.Sprintf("%s has the key that signed %s, but the name %q, where the certificate says %q", base(own.Path), named(c.Breaks[g[0].at].Credential.Certificate), c.Material(own).Leaf().Subject, leaf.Issuer)
		if c.Material(own).Leaf().Subject.String() == leaf.Issuer.String() {
			cause = fmt.Sprintf("%s has the key and the name that signed %s, but the name is encoded in another way (UTF8String, PrintableString), which no component takes for the same", base(own.Path), named(c.Breaks[g[0].at].Credential.Certificate))
		}
		f := c.finding(g, append([]trust.Place{own}, placesOf(g)...), cause, restore(own.Path))
		f.cascade = true
		out = append(out, f)
	}
	return out
}
