package catalog

import (
	"net/url"
	"path"

	"github.com/kubepki/kubepki/internal/trust"
)

// remoteFlags are the flags that name the kubeconfig of a webhook.
var remoteFlags = []struct{ flag, name string }{
	{"authentication-token-webhook-config-file", "token authentication webhook"},
	{"authorization-webhook-config-file", "authorization webhook"},
	{"audit-webhook-config-file", "audit webhook"},
}

// remotesOf are the servers beside the cluster's components that a component
// calls, by its flags and by its configuration files.
func remotesOf(c *trust.Component) []trust.Remote {
	var all []trust.Remote
	for _, f := range remoteFlags {
		if v, ok := c.Flag(f.flag); ok && path.IsAbs(v) && c.Name == APIServer {
			at := trust.Place{Node: c.Node, Path: path.Clean(v)}
			all = append(all, trust.Remote{Number: LinkWebhook, Name: f.name, Setting: c.Setting(f.flag), Kubeconfig: at})
		}
	}
	return append(all, c.Remotes...)
}

// remoteFiles are the files that the settings of remotes name.
func remoteFiles(n *trust.Node) []FileUse {
	var files []FileUse
	for i := range n.Components {
		for _, r := range remotesOf(&n.Components[i]) {
			for _, f := range []struct {
				at   trust.Place
				role trust.Role
			}{
				{r.Kubeconfig, RoleRemoteKubeconfig}, {r.CA, trust.RoleBundle}, {r.Certificate, trust.RoleCertificate}, {r.Key, trust.RoleKey},
			} {
				if !f.at.IsZero() && f.at.Field == "" {
					files = append(files, FileUse{Path: f.at.Path, Role: f.role})
				}
			}
		}
	}
	return files
}

// remoteLinks are links 14 and 21, to servers whose own files are not seen: what
// the caller shows, and by what it verifies them.
func (w *wirer) remoteLinks() {
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			for _, r := range remotesOf(c) {
				w.remoteLink(n, c, r)
			}
			if b := w.bundle(n, c, "oidc-ca-file", false); b != nil {
				b.Foreign = true
			}
		}
	}
}

// metricsLinks are link 19: what kube-controller-manager and kube-scheduler serve
// scrapers and probes with, where they have a pair for it, and whom they know by
// a file of their own.
func (w *wirer) metricsLinks() {
	for _, name := range []string{ControllerManager, Scheduler} {
		w.each(name, func(n *trust.Node, c *trust.Component) {
			pairs := w.sniCredentials(n, c, name+sniSuffix)
			if serving := w.credential(name+"-server", n, c, "tls-cert-file", "tls-private-key-file", server); serving != nil {
				pairs = append([]*trust.Credential{serving}, pairs...)
			}
			for _, p := range pairs {
				w.link(trust.Link{Number: 19, Caller: "metrics scraper", Callee: c.ID(), Server: &trust.ServerHalf{Credential: p}})
			}
			if !c.Source.IsZero() {
				w.bundle(n, c, "client-ca-file", true)
				w.bundle(n, c, "requestheader-client-ca-file", true)
			}
		})
	}
}

func (w *wirer) remoteLink(n *trust.Node, c *trust.Component, r trust.Remote) {
	var bundle *trust.Bundle
	unverified := false
	if !r.Kubeconfig.IsZero() {
		k := kubeconfigAt(n, r.Kubeconfig)
		if k == nil {
			return
		}
		if k.State != trust.Present {
			w.brokenKubeconfigTo(r.Number, c, k, r.Name)
			return
		}
		r.URL, r.ServerName, r.Certificate, r.Key, unverified = k.Server, k.ServerName, k.Certificate, k.Key, k.Insecure
		bundle = w.kubeconfigBundle(k)
	} else if !r.CA.IsZero() {
		bundle = w.bundleAt(r.CA, r.CASetting, false)
	}
	if bundle != nil {
		bundle.Foreign = true
	}
	if r.Number == 0 {
		return // what it trusts is judged; it is no link that has a number
	}
	l := trust.Link{Number: r.Number, Caller: c.ID(), Callee: calleeOf(r), Server: &trust.ServerHalf{Bundle: bundle, Names: remoteNames(r), Unverified: unverified}}
	if !r.Certificate.IsZero() {
		shown := w.credentialAt(r.Name, n.Name, r.Certificate, r.Key, client)
		if shown.KeySetting.IsZero() {
			shown.KeySetting = r.KeySetting
		}
		l.Client = &trust.ClientHalf{Credential: shown}
	}
	w.link(l)
}

func calleeOf(r trust.Remote) string {
	if u, err := url.Parse(r.URL); err == nil && u.Host != "" {
		return r.Name + " at " + u.Host
	}
	return r.Name
}

func remoteNames(r trust.Remote) []string {
	if r.ServerName != "" {
		return []string{r.ServerName}
	}
	if u, err := url.Parse(r.URL); err == nil && u.Hostname() != "" {
		return []string{u.Hostname()}
	}
	return nil
}
