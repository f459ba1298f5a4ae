package renew_test

import (
	"crypto"
	"errors"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestWhatADistributionKeepsIsRefused: kubepki writes nothing into its folders, and
// says its own command; kubeadm's file of the same name is not refused for that.
func TestWhatADistributionKeepsIsRefused(t *testing.T) {
	for layout, row := range map[string]struct{ file, hint string }{
		"k3s":      {"/var/lib/rancher/k3s/server/tls/serving-kube-apiserver.crt", "k3s"},
		"rke2":     {"/var/lib/rancher/rke2/server/tls/serving-kube-apiserver.crt", "rke2"},
		"k0s":      {"/var/lib/k0s/pki/server.crt", "k0s"},
		"microk8s": {"/var/snap/microk8s/current/certs/server.crt", "microk8s"},
		"kubeadm":  {"/etc/kubernetes/pki/apiserver.crt", ""},
	} {
		t.Run(layout, func(t *testing.T) {
			at := trust.Place{Path: row.file}
			key := trust.Place{Path: strings.TrimSuffix(row.file, ".crt") + ".key"}
			g := &trust.Graph{
				Nodes:       []trust.Node{{Layout: layout, Components: []trust.Component{{Name: "kube-apiserver"}}}},
				Credentials: []*trust.Credential{{ID: "apiserver", Name: "apiserver", Certificate: at, Key: key, Server: true}},
				Authorities: []trust.Authority{{Name: "ca", Certificate: trust.Place{Path: "/ca.crt"}, Key: trust.Place{Path: "/ca.key"}}},
			}
			for _, target := range []string{"apiserver", "ca"} {
				_, err := renew.Plan(g, nil, []string{target}, renew.Options{Keys: func(trust.Place) crypto.Signer { return nil }})
				var refused *renew.Refusal
				if !errors.As(err, &refused) {
					t.Fatalf("%s: %v", target, err)
				}
				if own := strings.Contains(refused.Reason, "keeps it itself"); own != (row.hint != "") || !strings.Contains(refused.Help, row.hint) {
					t.Errorf("%s: %v; %s", target, refused, refused.Help)
				}
			}
		})
	}
}
