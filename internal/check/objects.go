package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// objectRules find in the API's own objects what the rules of the table find in
// files, under the same ids; those whose ids are of objects alone are in the table.
var objectRules = []Rule{
	{"kubeconfig-broken", Error, clusterInfoBroken},
	{"file-missing", Error, rootCAAbsent},
	{"bundle-empty", Error, anchorsEmpty},
	{"authority-shared", Error, authorityPublishedTwice},
	{"cert-expired", Error, kubeletExpired},
	{"bundle-expired", Error, anchorsExpired},
	{"endpoint-mismatch", Error, clusterInfoElsewhere},
	{"bundle-stale", Error, objectsStale},
	{"san-missing", Error, kubeletNames},
	{"verify-off", Error, objectsUnverified},
	{"unreachable", Error, apiServiceUnavailable},
	{"requestheader-any-name", Warning, anyNamePublished},
	{"cert-outlives-ca", Warning, validityOutlives},
	{"not-seen", Info, objectsNotSeen},
}

// blamesObject tells whether, of two that do not fit, the object is the wrong one:
// what the API server shows is of its own authority, or was verified by the
// kubeconfig when it was asked.
func (c *Case) blamesObject(b Break) bool {
	if b.Bundle == nil || !b.Server || b.Credential == nil || c.Objects().Bundle(b.Bundle.Anchors) == nil {
		return false
	}
	if b.Kind != trust.OtherAuthority && b.Kind != trust.UnknownAuthority {
		return false
	}
	if b.Credential.Certificate == c.Objects().Presented {
		return true
	}
	leaf := c.Material(b.Credential.Certificate).Leaf()
	return leaf != nil && c.signer(c.authorityFor(b.Credential), leaf, b.Credential.Node) != nil
}

// provedByAPI tells whether a half was seen to work when the API was asked: the API
// server gets through to an APIService, and the kubeconfig verified the API server.
func (c *Case) provedByAPI(link int, side string) bool {
	o, l := c.Objects(), &c.Links[link]
	if o == nil || side != "server" || l.Server == nil || l.Server.Bundle == nil {
		return false
	}
	at := l.Server.Bundle.Anchors
	if b := o.Bundle(at); b != nil && b.Use == trust.ServiceCA {
		return b.Available
	}
	return l.Number == 9 && at == o.CA && !o.Insecure
}

// holders are the places of a bundle, its own first, and how many objects they are.
func holders(b *trust.ObjectBundle) int {
	objects := map[string]bool{b.Place.Path: true}
	for _, p := range b.Copies {
		objects[p.Path] = true
	}
	return len(objects)
}

// copies adds to the paths of findings the other objects that hold the very same.
func (c *Case) copies(findings []Finding) {
	o := c.Objects()
	if o == nil {
		return
	}
	for i := range findings {
		f := &findings[i]
		seen := map[string]bool{}
		for _, p := range f.Paths {
			seen[p] = true
		}
		for _, p := range f.places {
			b := o.Bundle(p)
			if b == nil {
				continue
			}
			for _, other := range b.Copies {
				if !seen[other.Path] {
					seen[other.Path] = true
					f.Paths = append(f.Paths, other.Path)
				}
			}
		}
	}
}

// objectsNamed names some objects for a sentence: the first, and how many more.
func objectsNamed(bundles []*trust.ObjectBundle) string {
	n := -1
	for _, b := range bundles {
		n += holders(b)
	}
	first := bundles[0]
	text := first.Place.Path
	switch first.Use {
	case trust.RootCA:
		text = "kube-root-ca.crt of namespace " + namespaceOf(first.Place)
	case trust.TokenCA:
		text = "ca.crt of Secret " + strings.TrimPrefix(first.Place.Path, "secret/")
	case trust.ServingCA, trust.OtherTrust:
		text = "ClusterTrustBundle " + first.Name
	case trust.DiscoveryCA:
		text = "kube-public/cluster-info"
	case trust.ClientCA, trust.RequestheaderCA:
		text = first.Place.Field + " of kube-system/extension-apiserver-authentication"
	case trust.ServiceCA:
		text = "the caBundle of APIService " + first.Name
	case trust.WebhookCA:
		text = "the caBundle of webhook " + first.Name
	case trust.ConversionCA:
		text = "the caBundle of the conversion webhook of " + first.Name
	}
	if n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// namespaceOf is that of RESOURCE/NAMESPACE/NAME.
func namespaceOf(p trust.Place) string {
	parts := strings.Split(p.Path, "/")
	if len(parts) < 3 {
		return ""
	}
	return parts[1]
}

// linkOf is the number of the link that anchors of a use are of.
func linkOf(u trust.BundleUse) int {
	switch u {
	case trust.RootCA, trust.TokenCA, trust.ServingCA:
		return 17
	case trust.DiscoveryCA:
		return 16
	case trust.WebhookCA, trust.ConversionCA:
		return 14
	case trust.OtherTrust:
		return 0
	}
	return 13
}

// linksOfObject is the link that a bundle of an object is of; nil for a file's.
func (c *Case) linksOfObject(p trust.Place) []int {
	if b := c.Objects().Bundle(p); b != nil {
		if n := linkOf(b.Use); n != 0 {
			return []int{n}
		}
	}
	return nil
}

// mendObject says what to do about what stands in an object of the API.
func mendObject(path string) string {
	resource, rest, _ := strings.Cut(path, "/")
	switch {
	case resource == "clustertrustbundle":
		return know(sh("kubepki", "trust", "diff", path, filePart), "%s: the authority's certificate; it shows what differs. Whoever signs for the bundle publishes it: for kubernetes.io/kube-apiserver-serving kube-controller-manager, from its --root-ca-file", filePart)
	case strings.HasSuffix(path, "/kube-root-ca.crt"):
		return know(sh("kubectl", "-n", namespaceOf(trust.Place{Path: path}), "delete", "configmap", "kube-root-ca.crt"), "kube-controller-manager makes it anew from its --root-ca-file, which it reads only when it starts")
	case path == "configmap/kube-public/cluster-info":
		return "put the authority of the cluster and the URL of its API server into it (kubectl -n kube-public edit configmap cluster-info); kube-controller-manager signs it anew"
	case path == "configmap/kube-system/extension-apiserver-authentication":
		return know("kubectl -n kube-system delete configmap extension-apiserver-authentication", "kube-apiserver makes it anew within a minute from its --client-ca-file and --requestheader-client-ca-file")
	case resource == "secret":
		namespace, name, _ := strings.Cut(rest, "/")
		return know(sh("kubectl", "-n", namespace, "delete", "secret", name), "make it anew where it is still needed")
	case resource == "https:":
		return "renew the serving certificate of kube-apiserver on its node: kubepki verify there names the file"
	}
	return mendAnchors(path, anyFile)
}

// anyFile stands for a file that only whoever runs the webhook knows.
const anyFile = "FILE"

// mendAnchors is for a target of kubepki trust.
func mendAnchors(target, file string) string {
	note := "kubepki trust prune takes out what has expired, and trust remove what is old"
	if file == anyFile {
		note = "FILE: the authority of what stands behind it; " + note
	}
	return know(sh("kubepki", "trust", "add", target, file, "--yes"), "%s", note)
}

// mendBundle says what to do about a bundle; of webhooks about each one's, for others
// of the object may be as they should be.
func mendBundle(b *trust.ObjectBundle, file string) string {
	if b.Use != trust.WebhookCA && b.Use != trust.ServiceCA && b.Use != trust.ConversionCA {
		return mendObject(b.Place.Path)
	}
	target := b.Place.Path
	if b.Use == trust.WebhookCA {
		target += "/" + b.Name
	}
	fix := mendAnchors(target, file)
	if b.Default {
		fix = strings.Replace(fix, " --yes", " --force --yes", 1)
	}
	if n := len(b.Copies); n > 0 {
		fix += fmt.Sprintf("; and so for %d more", n) // in the note
	}
	return fix
}

// objectsNotSeen tells of what was read and cannot be judged.
func objectsNotSeen(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var out []Finding
	if o.Kubeadm != nil && o.Kubeadm.Reason != "" {
		out = append(out, Finding{Cause: "kubeadm-config was not compared: " + o.Kubeadm.Reason}.at(o.Kubeadm.Place))
	}
	if !o.Presented.IsZero() && !o.Inside && c.noAPIServer() {
		out = append(out, Finding{Cause: "what answers at " + o.Server + " is not what pods see: its certificate does not hold kubernetes.default.svc, so that kube-root-ca.crt and cluster-info are not judged by it; give the files of a control plane too (--root)"}.at(o.Presented))
	}
	return out
}

// noAPIServer tells that the files of no API server were given.
func (c *Case) noAPIServer() bool {
	none := true
	c.components("kube-apiserver", func(*trust.Component) { none = false })
	return none
}

// clusterInfoBroken: nodes cannot join by it.
func clusterInfoBroken(c *Case) []Finding {
	o := c.Objects()
	if o == nil || o.ClusterInfo == nil || o.ClusterInfo.Reason == "" {
		return nil
	}
	f := Finding{Cause: "cluster-info cannot be used: " + o.ClusterInfo.Reason, Fix: mendObject(o.ClusterInfo.Place.Path), Links: []int{16}, cascade: true}
	return []Finding{f.at(o.ClusterInfo.Place)}
}

// rootCAAbsent: pods of the namespace do not start, for want of a volume.
func rootCAAbsent(c *Case) []Finding {
	o := c.Objects()
	if o == nil || len(o.Without) == 0 {
		return nil
	}
	var names []string
	for _, p := range o.Without[:min(3, len(o.Without))] {
		names = append(names, namespaceOf(p))
	}
	who := strings.Join(names, ", ")
	if n := len(o.Without) - len(names); n > 0 {
		who += fmt.Sprintf(" and %d more", n)
	}
	f := Finding{Cause: "no kube-root-ca.crt in " + who + ": new pods there do not start",
		Fix: "see why the controller root-ca-certificate-publisher of kube-controller-manager does not make it: is --root-ca-file set, and the controller not switched off by --controllers?", Links: []int{17}}
	f = f.at(o.Without[0])
	for _, p := range o.Without[1:] {
		f.Paths = append(f.Paths, p.Path)
	}
	return []Finding{f}
}

// objectsUnverified: TLS without a verification.
func objectsUnverified(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var out []Finding
	for i := range o.Bundles {
		if b := &o.Bundles[i]; b.Insecure {
			f := Finding{Cause: fmt.Sprintf("kube-apiserver does not verify what answers for APIService %s (insecureSkipTLSVerify): anybody in between may answer in its place, and learn who asks for what", b.Name),
				Fix: fmt.Sprintf("let APIService %s verify its server: set insecureSkipTLSVerify to false, and caBundle to its authority in base64, in one kubectl edit", b.Name), Links: []int{linkOf(b.Use)}}
			out = append(out, f.at(b.Place))
		}
	}
	if o.Insecure {
		p := trust.Place{Node: trust.ClusterNode, Path: o.Server, Field: "insecure-skip-tls-verify"}
		out = append(out, Finding{Cause: "the kubeconfig does not verify the API server: whatever was read may come from anybody in between", Links: []int{9},
			Fix: "set certificate-authority-data of the kubeconfig's cluster and take insecure-skip-tls-verify out"}.at(p))
	}
	return out
}

// apiServiceUnavailable tells of extension API servers that the API server does not
// get through to, unless the look at the running components has told of them.
func apiServiceUnavailable(c *Case) []Finding {
	o := c.Objects()
	if o != nil && o.Unreachable != "" {
		f := Finding{Cause: fmt.Sprintf("the API server %s cannot be asked: %s", o.Server, o.Unreachable), Fix: know("kubectl version -v 6", "with the same kubeconfig: it shows what goes wrong"), Links: []int{9}}
		if o.Stranger {
			f.ID, f.Fix = "refused", "use a kubeconfig of this cluster whose credential has not expired"
		}
		return []Finding{f.at(trust.Place{Node: trust.ClusterNode, Path: o.Server})}
	}
	if o == nil || c.sawPublished(func(p *trust.Published) bool { return p.APIServices != nil }) {
		return nil
	}
	var out []Finding
	for i := range o.Bundles {
		b := &o.Bundles[i]
		if b.Use != trust.ServiceCA || b.Available || b.Message == "" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("kube-apiserver does not get through to the extension API server of %s (service %s): %s", b.Name, b.Service, bounded(b.Message)),
			Fix: sh("kubectl", "describe", "apiservice", b.Name), Links: []int{13}, needs: []trust.Place{b.Place}}
		if strings.Contains(b.Message, "x509: ") || strings.Contains(b.Message, "tls: ") || strings.Contains(b.Message, "certificate") {
			f.ID = "refused"
		}
		out = append(out, f.at(trust.Place{Node: b.Place.Node, Path: b.Place.Path, Field: "status.conditions[Available]"}))
	}
	return out
}

// sawPublished tells whether an API server was asked directly for what it publishes.
func (c *Case) sawPublished(what func(*trust.Published) bool) bool {
	return slices.ContainsFunc(c.Observations, func(o trust.Observation) bool { return o.Published != nil && what(o.Published) })
}

// anyNamePublished and authorityPublishedTwice judge what extension API servers are
// told, where the flags that it comes from were not given.
func anyNamePublished(c *Case) []Finding {
	o := c.Objects()
	if o == nil || o.Requestheader == nil || len(o.Requestheader.Names) > 0 || !c.noAPIServer() {
		return nil
	}
	f := Finding{Cause: "requestheader-allowed-names is empty: every certificate of the front proxy's authority may speak for any user",
		Fix: "set --requestheader-allowed-names=front-proxy-client of kube-apiserver", Links: []int{13}}
	return []Finding{f.at(o.Requestheader.Place)}
}

func authorityPublishedTwice(c *Case) []Finding {
	o := c.Objects()
	if o == nil || !c.noAPIServer() {
		return nil
	}
	var clients, proxies *trust.ObjectBundle
	for i := range o.Bundles {
		switch o.Bundles[i].Use {
		case trust.ClientCA:
			clients = &o.Bundles[i]
		case trust.RequestheaderCA:
			proxies = &o.Bundles[i]
		}
	}
	if clients == nil || proxies == nil {
		return nil
	}
	for _, x := range c.Material(proxies.Place).Certificates {
		if !hasKeyOf(c.Material(clients.Place), x) {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("authority %s is the clients' and the front proxy's: a client of the cluster may speak for any user", subject(x)),
			Fix: "give each of the two an authority of its own (--client-ca-file, --requestheader-client-ca-file)", Links: []int{13}}
		if names := o.Requestheader; names != nil && len(names.Names) > 0 {
			f.Cause = fmt.Sprintf("authority %s is the clients' and the front proxy's: whoever gets a client certificate with the name %s may speak for any user", subject(x), strings.Join(names.Names, " or "))
		}
		return []Finding{f.at(proxies.Place, clients.Place)}
	}
	return nil
}

// validityOutlives: kubeadm signs what it is told.
func validityOutlives(c *Case) []Finding {
	o := c.Objects()
	if o == nil || o.Kubeadm == nil {
		return nil
	}
	const kubeadmLeaf, kubeadmCA = 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour
	leaf, ca := o.Kubeadm.Validity, o.Kubeadm.CAValidity
	if leaf == 0 {
		leaf = kubeadmLeaf
	}
	if ca == 0 {
		ca = kubeadmCA
	}
	if leaf <= ca {
		return nil
	}
	f := Finding{Cause: fmt.Sprintf("kubeadm-config makes certificates for %s and authorities for %s: the certificates outlive whoever signs them", days(leaf), days(ca)),
		Fix: "set certificateValidityPeriod below caCertificateValidityPeriod (kubectl -n kube-system edit configmap kubeadm-config)"}
	p := o.Kubeadm.Place
	p.Field += ".certificateValidityPeriod"
	return []Finding{f.at(p)}
}

// kubeadmSays names the settings of kubeadm-config that want some of the names.
func (c *Case) kubeadmSays(missing []string) (settings []trust.Place, said string) {
	o := c.Objects()
	if o == nil || o.Kubeadm == nil {
		return nil, ""
	}
	k := o.Kubeadm
	host, _ := catalog.SplitHostPort(k.ControlPlaneEndpoint)
	var fields []string
	add := func(field string, wants ...string) {
		if slices.ContainsFunc(wants, func(name string) bool { return name != "" && slices.Contains(missing, name) }) {
			p := k.Place
			p.Field += "." + field
			settings, fields = append(settings, p), append(fields, field)
		}
	}
	add("controlPlaneEndpoint", host)
	add("apiServer.certSANs", k.CertSANs...)
	add("networking.dnsDomain", "kubernetes.default.svc."+k.DNSDomain)
	if a, err := catalog.ServiceAddress(k.ServiceSubnet); err == nil {
		add("networking.serviceSubnet", a.String())
	}
	if len(fields) == 0 {
		return nil, ""
	}
	return settings, fmt.Sprintf(" (%s of kubeadm-config)", strings.Join(fields, ", "))
}

// ownKubeconfig says what to do about the certificate of the kubeconfig that the API
// was asked with: it is no file of a node.
func (c *Case) ownKubeconfig(s standing, fix string) string {
	o := c.Objects()
	if o == nil || s.places[0] != o.Client && s.places[0] != o.CA || s.places[0].IsZero() {
		return fix
	}
	if s.places[0] == o.CA {
		return "put the authority's current certificate into " + s.places[0].Path + " (kubepki show HOST:PORT names what is presented)"
	}
	return "make the kubeconfig anew on a control plane: kubepki kubeconfig user NAME, or kubeadm kubeconfig user"
}

// readRootCAs tells that kube-root-ca.crt of all namespaces was read.
func (c *Case) readRootCAs() bool {
	o := c.Objects()
	return o != nil && slices.ContainsFunc(o.Bundles, func(b trust.ObjectBundle) bool { return b.Use == trust.RootCA })
}

// caBundlesOf are the anchors of an APIService: where they are wrong, that it is not
// available follows.
func (c *Case) caBundlesOf(name string) []trust.Place {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var all []trust.Place
	for i := range o.Bundles {
		if b := &o.Bundles[i]; b.Use == trust.ServiceCA && b.Name == name {
			all = append(all, b.Place)
		}
	}
	return all
}
