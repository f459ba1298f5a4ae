package layout

import (
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// ParseKubeletConfiguration reads a KubeletConfiguration (YAML or JSON) and
// returns the kubelet with what it sets, under the names of the flags that
// mean the same: client-ca-file, anonymous-auth, authentication-token-webhook,
// tls-cert-file, tls-private-key-file, rotate-certificates, server-tls-bootstrap,
// authorization-mode, read-only-port, address, port and pod-manifest-path.
// Settings hold the field of each. What it does not set is not there.
func ParseKubeletConfiguration(place trust.Place, data []byte) (trust.Component, error) {
	c := trust.Component{Node: place.Node, Name: catalog.Kubelet, Source: place, Flags: map[string][]string{}}
	d, err := parseKubelet(place, data, false)
	if err != nil {
		return c, err
	}
	return c, mergeKubelet(&c, d)
}
