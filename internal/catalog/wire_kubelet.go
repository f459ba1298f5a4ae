package catalog

import (
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// kubeletLinks are links 10 and 11.
func (w *wirer) kubeletLinks() {
	w.each(Kubelet, func(n *trust.Node, callee *trust.Component) {
		serving := w.credential("kubelet-server", n, callee, "tls-cert-file", "tls-private-key-file", server)
		if serving != nil {
			w.link(trust.Link{Number: 10, Caller: "any client", Callee: callee.ID(), Server: &trust.ServerHalf{Credential: serving}})
		}
		clients := w.bundle(n, callee, "client-ca-file", true)
		w.each(APIServer, func(m *trust.Node, caller *trust.Component) {
			shown := w.credential("apiserver-kubelet-client", m, caller, "kubelet-client-certificate", "kubelet-client-key", client)
			if shown == nil {
				return
			}
			bundle := w.bundle(m, caller, "kubelet-certificate-authority", false)
			w.link(trust.Link{Number: 11, Caller: caller.ID(), Callee: callee.ID(),
				Server: &trust.ServerHalf{Credential: serving, Bundle: bundle, Names: w.kubeletDialled(n, caller), Unverified: bundle == nil},
				Client: &trust.ClientHalf{Credential: shown, Bundle: clients, Want: trust.Identity{Named: true}}})
		})
	})
}

// nodeNames are what the apiserver dials. It prefers the node's address, which
// the files do not tell; the node name is in every serving certificate.
func nodeNames(n *trust.Node) []string {
	if n.NodeName == "" {
		return nil
	}
	return []string{n.NodeName}
}

const externalSigner = "service-account-signing-endpoint"

// signedElsewhere is link 12 where a signer beside the apiserver signs tokens and
// publishes the keys that verify them: no file shows either (KEP-740).
func (w *wirer) signedElsewhere(n *trust.Node, c *trust.Component, socket string) {
	w.link(trust.Link{Number: 12, Caller: "external signer at " + socket, Callee: c.ID(), Signing: &trust.SigningHalf{}})
	n.NotSeen = append(slices.Clone(n.NotSeen), trust.NotSeen{Place: c.Setting(externalSigner),
		Reason: "service-account tokens are signed by the signer behind --" + externalSigner + ": with which key, and which keys verify them, no file here tells (link 12)"})
}

// tokenLinks are link 12: who signs service-account tokens, who verifies them.
func (w *wirer) tokenLinks() {
	signers := []struct{ component, flag string }{
		{APIServer, "service-account-signing-key-file"},
		{ControllerManager, "service-account-private-key-file"},
	}
	w.each(APIServer, func(m *trust.Node, verifier *trust.Component) {
		if external, ok := verifier.Flag(externalSigner); ok && external != "" {
			w.signedElsewhere(m, verifier, external)
			return
		}
		var keys []trust.Place
		for _, v := range verifier.Flags["service-account-key-file"] {
			keys = append(keys, trust.Place{Node: m.Name, Path: v})
		}
		if len(keys) == 0 {
			return
		}
		for _, s := range signers {
			w.each(s.component, func(n *trust.Node, signer *trust.Component) {
				if key := file(n, signer, s.flag); !key.IsZero() {
					w.link(trust.Link{Number: 12, Caller: signer.ID(), Callee: verifier.ID(), Signing: &trust.SigningHalf{Key: key, VerifyBy: keys}})
				}
			})
		}
	})
}
