package plan

import (
	"crypto"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
)

func TestTryOut(t *testing.T) {
	for _, s := range []shape{{controlPlanes: 3, workers: 1, authorities: catalog.Separate, manifests: true, users: true, paths: true}, {controlPlanes: 1, authorities: catalog.Intermediate, manifests: true, kubeletCA: true}} {
		g := catalog.Wire(nodesOf(t, s))
		for _, name := range []string{"ca", "etcd-ca", "front-proxy-ca"} {
			k := maker{t, map[string]crypto.Signer{}}
			p, err := Rotate(g, Rotation{New: k.replace(g, name), Reloads: design6, At: at})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s\n%s", name, p)
		}
	}
}
