package acmeissuer

import (
	"log/slog"
	"net/netip"
	"time"
)

// Settings are what a process says of itself and of the network that it is in.
type Settings struct {
	// ClusterNamespace is where the Secrets of ClusterIssuers are.
	ClusterNamespace string
	// UserAgent is how ACME servers see this program: kubepki/VERSION.
	UserAgent string
	// Addresses and Port are where ingresses and gateways reach [Tokens]: the
	// addresses of this process's pod. Without them HTTP-01 cannot be presented.
	Addresses []netip.Addr
	Port      int32
	// Nameservers and RecursiveOnly are those of [Solvers].
	Nameservers   []string
	RecursiveOnly bool
	Log           *slog.Logger
	Now           func() time.Time
}

// New puts the parts together. The caller serves [Orders.Solvers].Tokens at the port.
func New(client *Client, s Settings) *Orders {
	accounts := &Accounts{Kube: client.Kube, ClusterNamespace: s.ClusterNamespace, UserAgent: s.UserAgent, Log: s.Log, Now: s.Now}
	return &Orders{Client: client, Accounts: accounts, Log: s.Log, Now: s.Now, Solvers: &Solvers{
		Client: client, Tokens: &Tokens{Client: client}, Addresses: s.Addresses, Port: s.Port,
		Nameservers: s.Nameservers, RecursiveOnly: s.RecursiveOnly, Secrets: accounts.secret,
	}}
}
