//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/wait"
)

// etcdRows start etcd, and measure both of what each of its settings is for:
// members are servers and clients of one another.
func (b *bench) etcdRows() []*reloadRow {
	const clientURL, peerURL = "10.99.0.11:2379", "10.99.0.11:2380"
	server, peer := load(b.t, b.pki("etcd/server")), load(b.t, b.pki("etcd/peer"))
	b.start(catalog.Etcd, catalog.Etcd, slices.Concat([]string{"--unsafe-no-fsync"},
		b.givePair(catalog.Etcd, "cert-file", "key-file", server),
		b.givePair(catalog.Etcd, "peer-cert-file", "peer-key-file", peer),
		[]string{b.give(catalog.Etcd, "trusted-ca-file", b.etcd.pem), b.give(catalog.Etcd, "peer-trusted-ca-file", b.etcd.pem)})...)
	clients, peers := newAuthority(b.t, "etcd clients"), newAuthority(b.t, "etcd peers")
	nextPeer := b.etcd.again(b.t, peer.certificate)
	return append([]*reloadRow{
		b.servingRow(catalog.Etcd, "cert-file", "key-file", clientURL, "", &server, b.etcd.again(b.t, server.certificate)),
		b.servingRow(catalog.Etcd, "peer-cert-file", "peer-key-file", peerURL, "", &peer, nextPeer),
		b.etcdBundleRow("trusted-ca-file", clientURL, clients),
		b.etcdBundleRow("peer-trusted-ca-file", peerURL, peers),
	}, b.etcdPeerRows(peer, nextPeer, peers)...)
}

// etcdPeerRows look at the other half of what the rows of peers change: a front
// stands for a member that etcd dials.
func (b *bench) etcdPeerRows(old, next credential, peers *authority) []*reloadRow {
	f := newFront(b.t, b.frontLeaf(b.etcd), b.frontLeaf(peers), tls.RequestClientCert).handle(b.t,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	b.addLearner(f.url())
	shows := clientRow(catalog.Etcd, []string{"peer-cert-file", "peer-key-file"}, f, old, next, b.wait("peer-cert-file", next.certificate))
	shows.live = nil // the next row disconnects all the time
	trusts := trustRow(catalog.Etcd, "peer-trusted-ca-file", f, 2*time.Second, b.wait("peer-trusted-ca-file", slices.Concat(b.etcd.pem, peers.pem)), nil)
	shows.as, trusts.as = "as a client", "as a client"
	return []*reloadRow{shows, trusts}
}

// wait waits until another row has changed a file of etcd.
func (b *bench) wait(setting string, content []byte) func(context.Context) error {
	path := b.file(catalog.Etcd, setting)
	return func(ctx context.Context) error {
		return wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			now, err := os.ReadFile(path)
			return bytes.Equal(now, content), err
		})
	}
}

// addLearner makes etcd believe in a member that has no vote.
func (b *bench) addLearner(peerURL string) {
	b.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://10.99.0.11:2379"}, Logger: zap.NewNop(),
		TLS: load(b.t, b.pki("etcd/healthcheck-client")).always(b.t, &tls.Config{RootCAs: b.etcd.pool(), MinVersion: tls.VersionTLS12}),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), readyWait)
	defer cancel()
	if _, err := client.MemberAddAsLearner(ctx, []string{peerURL}); err != nil {
		b.t.Fatal(err)
	}
}

// etcdBundleRow asks whether etcd accepts a client of a new authority.
func (b *bench) etcdBundleRow(flag, address string, clients *authority) *reloadRow {
	// Peers must come from an address of their certificate.
	client := clients.leaf(b.t, pkix.Name{CommonName: "reload"}, "10.99.0.11")
	return &reloadRow{
		component: catalog.Etcd, settings: []string{flag},
		change: b.swap(catalog.Etcd, flag, b.etcd.pem, clients.pem),
		seen: func(ctx context.Context) (bool, error) {
			conn, err := b.dial(ctx, address, "", &client)
			if err == nil {
				defer conn.Close()
				// In TLS 1.3 the client learns of a refusal after its handshake.
				err = alive(conn)
			}
			if err != nil && refused(err) {
				return false, nil
			}
			return err == nil, err
		},
	}
}
