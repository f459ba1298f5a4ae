//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// reloadRows starts the cluster and returns its measurements. Each puts
// something of its own into its file, which no other row knows, so that none
// can be taken for another.
func (b *bench) reloadRows() []*reloadRow {
	return slices.Concat(b.etcdRows(), b.apiserverRows(), b.controllerManagerRows(), b.schedulerRows(), b.kubeletRows())
}

const ownAddress = "10.99.0.254"

// masters is the subject of a client of a new authority, who may do everything
// once the authority is trusted.
var masters = pkix.Name{CommonName: "reload", Organization: []string{"system:masters"}}

// servingRow measures the pair that a server presents at an address of the
// node, to a client that shows a certificate where one is given. A connection
// from before stays alive.
func (b *bench) servingRow(component, certificate, key, address, serverName string, show *credential, c credential) *reloadRow {
	seen := func(ctx context.Context) (bool, error) { return b.presents(ctx, address, serverName, show, c) }
	mismatch := func(ctx context.Context) error {
		now, err := seen(ctx)
		switch {
		case component == catalog.Etcd && err == nil:
			return errors.New("etcd makes a handshake, so that it has not read the key anew")
		case component == catalog.Etcd:
			return nil // it reads both files at each handshake
		case now:
			return errors.New("the new certificate is presented already")
		}
		return err
	}
	settings := []string{certificate, key}
	if serverName != "" { // one flag names both files
		settings = []string{"tls-sni-cert-key"}
	}
	var before *tls.Conn
	return &reloadRow{
		component: component, settings: settings, seen: seen,
		change: func(ctx context.Context) (err error) {
			if before, err = b.dial(ctx, address, serverName, show); err != nil {
				return err
			}
			if err := alive(before); err != nil { // no server closes what is in use
				return err
			}
			return b.swapPair(component, certificate, key, c, mismatch)(ctx)
		},
		live: func(context.Context) error {
			defer before.Close()
			return alive(before)
		},
	}
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
