package catalog

import "github.com/kubepki/kubepki/internal/trust"

// Components of the service layout: two programs that speak mutual TLS. Their
// link is none of Kubernetes' and has the number 0.
const (
	ServiceServer = "server"
	ServiceClient = "client"
)

func (w *wirer) serviceLinks() {
	w.each(ServiceServer, func(n *trust.Node, callee *trust.Component) {
		serving := w.credential("server", n, callee, "tls-cert-file", "tls-private-key-file", server)
		clients := w.bundle(n, callee, "client-ca-file", true)
		w.each(ServiceClient, func(m *trust.Node, caller *trust.Component) {
			if m != n {
				return
			}
			w.link(trust.Link{Caller: caller.ID(), Callee: callee.ID(),
				Server: &trust.ServerHalf{Credential: serving, Bundle: w.bundle(m, caller, "cacert", false)},
				Client: &trust.ClientHalf{Credential: w.credential("client", m, caller, "cert", "key", client), Bundle: clients}})
		})
	})
}
