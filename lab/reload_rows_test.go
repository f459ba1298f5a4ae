//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// reloadRows starts the cluster and returns its measurements. Each puts
// something of its own into its file, which no other row knows, so that none
// can be taken for another.
func (b *bench) reloadRows() []*reloadRow {
	return slices.Concat(b.etcdRows(), b.apiserverRows(), b.controllerManagerRows(), b.schedulerRows(), b.kubeletRows())
}

const ownAddress = "10.99.0.254"

// admin of a new authority, who may do everything once the authority is
// trusted.
var masters = pkix.Name{CommonName: "reload", Organization: []string{"system:masters"}}

// swap replaces a file of an instance's setting by a rename.
func (b *bench) swap(instance, setting string, content ...[]byte) func(context.Context) error {
	path := b.file(instance, setting)
	return func(context.Context) error { return replace(path, slices.Concat(content...)) }
}

// overwrite replaces the content of a file in its place, as cp does.
func (b *bench) overwrite(instance, setting string, content ...[]byte) func(context.Context) error {
	path := b.file(instance, setting)
	return func(context.Context) error { return os.WriteFile(path, slices.Concat(content...), 0o600) }
}

// link makes the file of an instance's setting a symbolic link to one that
// holds its content, as tools that keep dated files do.
func (b *bench) link(instance, setting string) {
	b.t.Helper()
	path := b.file(instance, setting)
	if err := os.Rename(path, path+"-1"); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(path)+"-1", path); err != nil {
		b.t.Fatal(err)
	}
}

// swapLink switches a link of link to another file. The old one stays.
func (b *bench) swapLink(instance, setting string, content ...[]byte) error {
	path := b.file(instance, setting)
	if err := os.WriteFile(path+"-2", slices.Concat(content...), 0o600); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(path)+"-2", path+"-new"); err != nil {
		return err
	}
	return os.Rename(path+"-new", path)
}

// removeLinked removes what a link pointed at before it was switched.
func (b *bench) removeLinked(instance, setting string) error {
	return os.Remove(b.file(instance, setting) + "-1")
}

// swapPair replaces a key and then, after a while in which the two do not
// belong together, its certificate. meanwhile must not fail.
func (b *bench) swapPair(instance, certificate, key string, c credential, meanwhile func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := replace(b.file(instance, key), c.key); err != nil {
			return err
		}
		for range 4 {
			time.Sleep(400 * time.Millisecond) // the mismatch lasts: that is what is tried
			if meanwhile == nil {
				continue
			}
			if err := meanwhile(ctx); err != nil {
				return fmt.Errorf("while key and certificate do not match: %w", err)
			}
		}
		return replace(b.file(instance, certificate), c.certificate)
	}
}

// servingRow measures the pair that a server presents at an address of the
// node. A connection from before stays alive.
func (b *bench) servingRow(component, certificate, key, address, serverName string, show *credential, c credential) *reloadRow {
	seen := func(ctx context.Context) (bool, error) { return b.presents(ctx, address, serverName, show, c) }
	var before *tls.Conn
	change := b.swapPair(component, certificate, key, c, func(ctx context.Context) error {
		switch now, err := seen(ctx); {
		case err != nil:
			return err
		case now:
			return errors.New("the new certificate is presented already")
		}
		return nil
	})
	settings := []string{certificate, key}
	if serverName != "" { // one flag names both files
		settings = []string{"tls-sni-cert-key"}
	}
	return &reloadRow{
		component: component, settings: settings, seen: seen,
		change: func(ctx context.Context) (err error) {
			if before, err = b.dial(ctx, address, serverName, show); err != nil {
				return err
			}
			return change(ctx)
		},
		live: func(context.Context) error {
			defer before.Close()
			return alive(before)
		},
	}
}

// etcdServingRow is servingRow for etcd while key and certificate do not match:
// it reads them at each handshake, so that handshakes fail in the meantime.
func (b *bench) etcdServingRow(certificate, key, address string, show, c credential) *reloadRow {
	r := b.servingRow(catalog.Etcd, certificate, key, address, "", &show, c)
	var before *tls.Conn
	r.change = func(ctx context.Context) (err error) {
		if before, err = b.dial(ctx, address, "", &show); err != nil {
			return err
		}
		return b.swapPair(catalog.Etcd, certificate, key, c, func(ctx context.Context) error {
			if _, err := b.presents(ctx, address, "", &show, c); err == nil {
				return errors.New("etcd makes a handshake, so that it has not read the key anew")
			}
			return nil
		})(ctx)
	}
	r.live = func(context.Context) error {
		defer before.Close()
		return alive(before)
	}
	return r
}

// bundleRow measures a bundle of client authorities: a caller of a new
// authority is taken for who it is, on a connection that was there before: each
// request is judged, and not only its handshake.
func (b *bench) bundleRow(component, flag string, change func(context.Context) error, c *caller) *reloadRow {
	return &reloadRow{
		component: component, settings: []string{flag}, change: change,
		seen: c.accepted, live: c.onTheSameConnection,
	}
}

// requestHeaders are what a front proxy says of its caller.
var requestHeaders = http.Header{"X-Remote-User": {"reload"}, "X-Remote-Group": {"system:masters"}}

var frontProxy = pkix.Name{CommonName: "front-proxy-client"}

// servedRows are the rows of every server that is built on k8s.io/apiserver,
// and the flags that they need. The bundle of client authorities is rewritten
// in its place, the one of front proxies renamed.
func (b *bench) servedRows(component, address, page string) (flags []string, rows []*reloadRow) {
	clients, proxies := newAuthority(b.t, component+" clients"), newAuthority(b.t, component+" proxies")
	serving := b.cluster.leaf(b.t, pkix.Name{CommonName: component}, "127.0.0.1")
	if component == catalog.APIServer {
		serving = load(b.t, b.pki("apiserver"))
	}
	flags = append(b.givePair(component, "tls-cert-file", "tls-private-key-file", serving),
		b.give(component, "client-ca-file", b.cluster.pem),
		b.give(component, "requestheader-client-ca-file", b.proxy.pem))
	url := "https://" + address + page
	return flags, []*reloadRow{
		b.servingRow(component, "tls-cert-file", "tls-private-key-file", address, "", nil, b.cluster.again(b.t, serving.certificate)),
		b.bundleRow(component, "client-ca-file", b.overwrite(component, "client-ca-file", b.cluster.pem, clients.pem),
			b.caller(clients.leaf(b.t, masters), url, nil)),
		b.bundleRow(component, "requestheader-client-ca-file", b.swap(component, "requestheader-client-ca-file", b.proxy.pem, proxies.pem),
			b.caller(proxies.leaf(b.t, frontProxy), url, requestHeaders)),
	}
}

// clientRow measures the client certificate that a component shows to a front.
func clientRow(component string, settings []string, f *front, old, c credential, change func(context.Context) error) *reloadRow {
	return &reloadRow{
		component: component, settings: settings, change: change,
		seen: func(context.Context) (bool, error) {
			serial, _ := f.shown()
			if serial != old.serial() && serial != c.serial() {
				return false, errWait
			}
			return serial == c.serial(), nil
		},
		live: func(context.Context) error {
			if _, connected := f.count(old.serial()); connected > 0 {
				return fmt.Errorf("%d connections of the old certificate are open", connected)
			}
			return nil
		},
	}
}

// trustRow measures a bundle of serving authorities by what a front presents.
func trustRow(component, setting string, f *front, every time.Duration, change, provoke func(context.Context) error) *reloadRow {
	var call func(context.Context)
	if provoke != nil {
		call = func(ctx context.Context) { _ = provoke(ctx) } // the front sees how it ends
	}
	return &reloadRow{
		component: component, settings: []string{setting}, change: change, every: every,
		seen: func(ctx context.Context) (bool, error) { return f.trusts(ctx, call) },
	}
}

func (b *bench) etcdRows() []*reloadRow {
	const clientURL, peerURL = "10.99.0.11:2379", "10.99.0.11:2380"
	server, peer := load(b.t, b.pki("etcd/server")), load(b.t, b.pki("etcd/peer"))
	b.start(catalog.Etcd, catalog.Etcd, slices.Concat([]string{"--unsafe-no-fsync"},
		b.givePair(catalog.Etcd, "cert-file", "key-file", server),
		b.givePair(catalog.Etcd, "peer-cert-file", "peer-key-file", peer),
		[]string{b.give(catalog.Etcd, "trusted-ca-file", b.etcd.pem), b.give(catalog.Etcd, "peer-trusted-ca-file", b.etcd.pem)})...)
	return []*reloadRow{
		b.etcdServingRow("cert-file", "key-file", clientURL, server, b.etcd.again(b.t, server.certificate)),
		b.etcdServingRow("peer-cert-file", "peer-key-file", peerURL, peer, b.etcd.again(b.t, peer.certificate)),
		b.etcdBundleRow("trusted-ca-file", clientURL),
		b.etcdBundleRow("peer-trusted-ca-file", peerURL),
	}
}

// etcdBundleRow asks whether etcd accepts a client of a new authority.
func (b *bench) etcdBundleRow(flag, address string) *reloadRow {
	clients := newAuthority(b.t, "etcd "+flag)
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

// controllerManagerRows start two of them: one with an embedded credential,
// and one whose kubeconfig names files.
func (b *bench) controllerManagerRows() []*reloadRow {
	const address, paths = "127.0.0.1:10257", "controller-manager-paths"
	name := pkix.Name{CommonName: "system:kube-controller-manager"}
	component := catalog.ControllerManager
	flags, rows := b.servedRows(component, address, "/metrics")

	servers := newAuthority(b.t, "embedded servers")
	embedded := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(servers))
	old, next := b.cluster.leaf(b.t, name), b.cluster.leaf(b.t, name)
	before := b.kubeconfig(clientcmdapi.Cluster{Server: embedded.url(), CertificateAuthorityData: b.cluster.pem},
		clientcmdapi.AuthInfo{ClientCertificateData: old.certificate, ClientKeyData: old.key})
	after := b.kubeconfig(clientcmdapi.Cluster{Server: embedded.url(), CertificateAuthorityData: slices.Concat(b.cluster.pem, servers.pem)},
		clientcmdapi.AuthInfo{ClientCertificateData: next.certificate, ClientKeyData: next.key})
	signing, signed := b.signingRow()
	b.start(component, component, slices.Concat(flags, signing, []string{
		b.give(component, "kubeconfig", before),
		b.give(component, "root-ca-file", b.cluster.pem),
		b.give(component, "service-account-private-key-file", read(b.t, b.pki("sa.key"))),
	})...)
	// Refused connections would end it while it starts its controllers.
	eventually(b.t, "the controller manager publishes kube-root-ca.crt", func(ctx context.Context) error {
		_, err := b.api().CoreV1().ConfigMaps("kube-public").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	change := b.swap(component, "kubeconfig", after)

	named := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(b.cluster))
	oldNamed, nextNamed := b.cluster.leaf(b.t, name), b.cluster.leaf(b.t, name)
	// It signs no tokens either, which the list of controllers does not say.
	linked := b.give(paths, "client-ca-file", b.cluster.pem)
	b.link(paths, "client-ca-file")
	b.start(paths, component, "--secure-port=11257", "--leader-elect-resource-name=reload", "--controllers=clusterrole-aggregation-controller",
		"--service-account-private-key-file=", linked,
		b.give(paths, "kubeconfig", b.kubeconfig(
			clientcmdapi.Cluster{Server: named.url(), CertificateAuthority: b.put(paths, "certificate-authority", b.cluster.pem)},
			clientcmdapi.AuthInfo{
				ClientCertificate: b.put(paths, "client-certificate", oldNamed.certificate),
				ClientKey:         b.put(paths, "client-key", oldNamed.key),
			})))
	certificateByPath := clientRow(component, []string{"client-certificate", "client-key"}, named, oldNamed, nextNamed,
		b.swapPair(paths, "client-certificate", "client-key", nextNamed, nil))
	certificateByPath.instance = paths
	return append(rows, signed, b.rootCARow(), b.tokenSecretRow(), certificateByPath, b.linkedBundleRow(component, paths, "127.0.0.1:11257"),
		clientRow(component, []string{"client-certificate-data", "client-key-data"}, embedded, old, next, change),
		trustRow(component, "certificate-authority-data", embedded, 10*time.Second, change, nil))
}

// linkedBundleRow switches a link to a bundle of client authorities.
func (b *bench) linkedBundleRow(component, instance, address string) *reloadRow {
	clients := newAuthority(b.t, "linked clients")
	c := b.caller(clients.leaf(b.t, masters), "https://"+address+"/metrics", nil)
	return &reloadRow{
		component: component, settings: []string{"client-ca-file"}, instance: instance, seen: c.accepted,
		change: func(context.Context) error { return b.swapLink(instance, "client-ca-file", b.cluster.pem, clients.pem) },
		notify: func() error { return b.removeLinked(instance, "client-ca-file") },
	}
}

// frontLeaf is a serving certificate of a front.
func (b *bench) frontLeaf(a *authority) credential {
	return a.leaf(b.t, pkix.Name{CommonName: "front"}, ownAddress, "reload.kube-system.svc")
}

// schedulerRows start one whose kubeconfig names a token file and an authority
// file.
func (b *bench) schedulerRows() []*reloadRow {
	component := catalog.Scheduler
	flags, rows := b.servedRows(component, "127.0.0.1:10259", "/metrics")
	servers := newAuthority(b.t, "named servers")
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(servers))
	old, next := b.schedulerToken(), b.schedulerToken()
	tokenFile := b.put(component, "tokenFile", []byte(old))
	b.link(component, "tokenFile") // as in a volume
	b.start(component, component, append(flags, b.give(component, "kubeconfig", b.kubeconfig(
		clientcmdapi.Cluster{Server: f.url(), CertificateAuthority: b.put(component, "certificate-authority", b.cluster.pem)},
		clientcmdapi.AuthInfo{TokenFile: tokenFile})))...)
	return append(rows,
		trustRow(component, "certificate-authority", f, 3*time.Second, b.swap(component, "certificate-authority", b.cluster.pem, servers.pem), nil),
		&reloadRow{
			component: component, settings: []string{"tokenFile"},
			change: func(context.Context) error { return b.swapLink(component, "tokenFile", []byte(next)) },
			seen: func(context.Context) (bool, error) {
				_, token := f.shown()
				if token != old && token != next {
					return false, errWait
				}
				return token == next, nil
			},
		})
}
