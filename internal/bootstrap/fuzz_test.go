package bootstrap_test

import (
	"crypto/x509"
	"testing"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

// What somebody with the token may have written is read to the end or refused:
// never without a server to join at and an authority to trust.
func FuzzParseClusterInfo(f *testing.F) {
	f.Add([]byte(clusterInfo(f, []*x509.Certificate{authority(f)})["kubeconfig"]))
	f.Add([]byte("kind: Config\napiVersion: v1\nclusters: [{name: '', cluster: {server: 'https://a', certificate-authority-data: AAAA}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := bootstrap.ParseClusterInfo(data)
		if err != nil {
			return
		}
		if _, err := bootstrap.Endpoint(info.Server); err != nil || len(info.Anchors) == 0 {
			t.Errorf("server %q, %d anchors", info.Server, len(info.Anchors))
		}
	})
}
