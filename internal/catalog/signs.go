package catalog

import (
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// SignerOf names the authority of a credential's node that the layout says signs
// it; empty where the layout says nothing of it, so that its role tells.
func SignerOf(authorities []trust.Authority, cred *trust.Credential) string {
	clients := ""
	for _, a := range authorities {
		switch {
		case a.Node != cred.Node:
		case slices.Contains(a.Signs, cred.Name):
			return a.Name
		case slices.Contains(a.Signs, Clients) && cred.Client && !cred.Server:
			clients = a.Name
		}
	}
	return clients
}
