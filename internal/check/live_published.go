package check

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// KeyID is the id under which the apiserver publishes a public key that
// verifies tokens (k/k pkg/serviceaccount/jwt.go, keyIDFromPublicKey); empty for
// a key that has no PKIX form.
func KeyID(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// judgePublished adds what an apiserver's own word breaks: tokens that it does
// not verify, extension apiservers that it does not get through to.
func (c *Case) judgePublished(o *trust.Observation, broken func(link int, server bool) bool) {
	if o.Published == nil {
		return
	}
	for i, l := range c.Links {
		if l.Callee == o.Server.Component && l.Signing != nil && !broken(i, false) && c.unverified(o, &l) {
			c.liveBreak(i, false, o, nil)
		}
		if l.Caller == o.Server.Component && l.Number == aggregation && !broken(i, false) && len(unavailable(o)) > 0 {
			c.liveBreak(i, false, o, nil)
		}
	}
}

// signerID is the id of the key that signs the tokens of a link.
func (c *Case) signerID(l *trust.Link) string {
	if m := c.Material(l.Signing.Key); m.OK() && len(m.Keys) > 0 {
		return KeyID(m.Keys[0])
	}
	return ""
}

func (c *Case) unverified(o *trust.Observation, l *trust.Link) bool {
	id := c.signerID(l)
	return id != "" && o.Published.KeyIDs != nil && !slices.Contains(o.Published.KeyIDs, id)
}

// verifies tells whether an apiserver publishes the key that signs the tokens
// of a link.
func (c *Case) verifies(o *trust.Observation, l *trust.Link) bool {
	return o.Published != nil && o.Server.Component == l.Callee && slices.Contains(o.Published.KeyIDs, c.signerID(l))
}

// aggregates tells whether an apiserver gets through to all extension
// apiservers: it asks them with its front-proxy certificate (kube-aggregator
// pkg/controllers/status/remote/remote_available_controller.go).
func (c *Case) aggregates(o *trust.Observation, l *trust.Link) bool {
	return o.Published != nil && o.Server.Component == l.Caller && len(o.Published.APIServices) > 0 && len(unavailable(o)) == 0
}

func unavailable(o *trust.Observation) []trust.APIService {
	return slices.DeleteFunc(slices.Clone(o.Published.APIServices), func(s trust.APIService) bool { return s.Available })
}

// publishedStale compares what the apiservers publish with the files.
func (c *Case) publishedStale() []Finding {
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Published == nil {
			continue
		}
		out = append(out, c.tokensStale(o)...)
		out = append(out, c.configMapStale(o)...)
		out = append(out, c.aggregationFails(o)...)
	}
	return oncePerCause(out)
}

// oncePerCause: what is the cluster's is said by each apiserver.
func oncePerCause(in []Finding) []Finding {
	var out []Finding
	for _, f := range in {
		if i := slices.IndexFunc(out, func(g Finding) bool { return g.Cause == f.Cause }); i >= 0 {
			out[i].breaks = append(out[i].breaks, f.breaks...)
			continue
		}
		out = append(out, f)
	}
	return out
}

// tokensStale: an apiserver reads --service-account-key-file when it starts.
func (c *Case) tokensStale(o *trust.Observation) []Finding {
	var said []string
	var places []trust.Place
	var ids []string
	for _, l := range c.Links {
		if l.Signing == nil || l.Callee != o.Server.Component || o.Published.KeyIDs == nil {
			continue
		}
		for _, at := range l.Signing.VerifyBy {
			if !c.Material(at).OK() {
				return nil // a finding of its own
			}
			places = append(places, at)
			for _, k := range c.Material(at).Keys {
				ids = append(ids, KeyID(k))
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if text := "it does not know the key " + id + " of the file"; !slices.Contains(o.Published.KeyIDs, id) && !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	for _, id := range o.Published.KeyIDs {
		if !slices.Contains(ids, id) {
			said = append(said, "it takes the key "+id+", which is not in the file")
		}
	}
	if len(said) == 0 {
		return nil
	}
	f := Finding{Cause: fmt.Sprintf("%s verifies tokens with other keys than %s holds: %s", label(o.Server.Component), base(places[0].Path), strings.Join(said, "; ")),
		Fix: know(restartCommand(catalog.APIServer), "it reads --service-account-key-file only when it starts"), needs: places, live: true, processes: []string{o.Server.Component}}.at(places...)
	return []Finding{c.withBreaks(f, func(b Break) bool { return b.seen == o && b.call == nil && c.Links[b.Link].Signing != nil })}
}

// published is a ConfigMap by which others learn whom to trust, and the flag of
// the component that publishes it.
type published struct {
	component, flag, what, fix string
	certificates               []*x509.Certificate // nil: not read
}

const (
	authenticationMap = "the ConfigMap kube-system/extension-apiserver-authentication"
	waitForAPIServer  = "it takes the file up within a second and publishes it within a minute, unless it was not told of the change (a network file system, a link that was switched): writing the file again may do as well"
)

// configMapStale compares what others learn whom to trust from with the files:
// extension apiservers from kube-system/extension-apiserver-authentication, pods
// from kube-root-ca.crt.
func (c *Case) configMapStale(o *trust.Observation) []Finding {
	var out []Finding
	for _, p := range []published{
		{catalog.APIServer, "client-ca-file", authenticationMap, know(restartCommand(catalog.APIServer), waitForAPIServer), o.Published.ClientCAs},
		{catalog.APIServer, "requestheader-client-ca-file", authenticationMap, know(restartCommand(catalog.APIServer), waitForAPIServer), o.Published.RequestheaderCAs},
		{catalog.ControllerManager, "root-ca-file", "the ConfigMap kube-root-ca.crt, which pods trust,",
			know(restartCommand(catalog.ControllerManager), "it reads --root-ca-file only when it starts"), o.Published.RootCAs},
	} {
		if p.certificates == nil || p.flag == "root-ca-file" && c.readRootCAs() {
			continue // of all namespaces bundle-stale tells
		}
		out = append(out, c.publishedMissing(p)...)
		out = append(out, c.publishedBeyond(p)...)
	}
	return out
}

// filesOfFlag are the bundles that the components of a name have in a flag.
func (c *Case) filesOfFlag(component, flag string) []*trust.Material {
	var all []*trust.Material
	c.components(component, func(p *trust.Component) {
		v, _ := p.Flag(flag)
		if m := c.Material(trust.Place{Node: p.Node, Path: v}); m.OK() {
			all = append(all, m)
		}
	})
	return all
}

// publishedMissing: an authority of a file is not published. Of several
// controller-managers the leader alone publishes.
func (c *Case) publishedMissing(p published) []Finding {
	files := c.filesOfFlag(p.component, p.flag)
	var missing []trust.Place
	for _, m := range files {
		if slices.ContainsFunc(m.Certificates, func(x *x509.Certificate) bool { return !c.outlived(x) && !slices.ContainsFunc(p.certificates, x.Equal) }) {
			missing = append(missing, m.Place)
		}
	}
	if len(missing) == 0 || len(missing) < len(files) && p.component == catalog.ControllerManager {
		return nil
	}
	f := Finding{Cause: fmt.Sprintf("%s does not hold the authority of %s: others still learn the old one", p.what, base(missing[0].Path)), Fix: p.fix, needs: missing, live: true}
	for _, at := range missing {
		f.processes = append(f.processes, (&trust.Component{Node: at.Node, Name: p.component}).ID())
	}
	return []Finding{f.at(missing...)}
}

// publishedBeyond: kube-apiserver adds its authorities to those that are
// published and takes none away (k/k
// pkg/controlplane/controller/clusterauthenticationtrust), so that extension
// apiservers still trust what the apiservers do not.
func (c *Case) publishedBeyond(p published) []Finding {
	files := c.filesOfFlag(p.component, p.flag)
	if p.component != catalog.APIServer || len(files) == 0 {
		return nil
	}
	var beyond []string
	for _, x := range p.certificates {
		if !c.outlived(x) && !slices.ContainsFunc(files, func(m *trust.Material) bool { return slices.ContainsFunc(m.Certificates, x.Equal) }) {
			beyond = append(beyond, fmt.Sprintf("%s (serial %X)", x.Subject, x.SerialNumber))
		}
	}
	if len(beyond) == 0 {
		return nil
	}
	f := Finding{Severity: Warning, Cause: fmt.Sprintf("%s still holds %s, which no --%s given here holds: extension apiservers go on to trust it", p.what, strings.Join(beyond, ", "), p.flag),
		Fix: know("kubectl edit configmap -n kube-system extension-apiserver-authentication", "once nothing is of that authority: kube-apiserver only adds")}
	return []Finding{f.at(files[0].Place)}
}

// outlived tells of a certificate that has expired: those are not published.
func (c *Case) outlived(x *x509.Certificate) bool { return c.At.After(x.NotAfter) }

// aggregationFails tells of extension apiservers that the apiserver does not
// get through to.
func (c *Case) aggregationFails(o *trust.Observation) []Finding {
	var out []Finding
	for _, s := range unavailable(o) {
		f := Finding{ID: "unreachable", Cause: fmt.Sprintf("kube-apiserver does not get through to the extension apiserver of %s (service %s): %s: %s%s", s.Name, s.Service, s.Reason, bounded(s.Message), c.aboutBundle(s)),
			Fix: sh("kubectl", "describe", "apiservice", s.Name)}
		if strings.Contains(s.Message, "x509: ") || strings.Contains(s.Message, "tls: ") || strings.Contains(s.Message, "certificate") {
			f.ID = "refused"
		}
		f.needs = c.caBundlesOf(s.Name)
		f = f.at(trust.Place{Field: "apiservice " + s.Name})
		out = append(out, c.withBreaks(f, func(b Break) bool { return b.seen == o && b.call == nil && c.Links[b.Link].Number == aggregation }))
	}
	return out
}

// aboutBundle says what is wrong with the caBundle itself.
func (c *Case) aboutBundle(s trust.APIService) string {
	switch {
	case s.CABundle == nil:
		return ""
	case len(s.CABundle) == 0:
		return "; its caBundle holds no certificate"
	case !slices.ContainsFunc(s.CABundle, func(x *x509.Certificate) bool { return !c.outlived(x) }):
		return "; its caBundle holds only expired certificates"
	}
	return ""
}

// bounded cuts a text of the cluster to what a finding can hold.
func bounded(text string) string {
	const most = 400
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
