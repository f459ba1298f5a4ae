package bootstrap

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Fetch gets the data of the ConfigMap kube-public/cluster-info from the API
// server at HOST:PORT, as an anonymous client. Without anchors it does not
// verify the server's certificate; with some, by nothing else.
type Fetch func(ctx context.Context, endpoint string, anchors []*x509.Certificate) (map[string]string, error)

// Discovery says what a node knows before it knows a cluster.
type Discovery struct {
	Endpoint string // HOST:PORT of the API server
	Token    Token
	Pins     []Pin
	// Unpinned allows Pins to be empty: then everybody who knows the token,
	// each node that ever joined with it among them, can pose as the cluster.
	Unpinned bool
	// Retry is the time between attempts while the server does not answer or
	// the signature is not there yet, until the context ends; 0: one attempt.
	Retry time.Duration
}

// Discover learns where a cluster is and whom to trust, and proves it: it
// fetches cluster-info without verifying the server, verifies the signature
// with the token and an authority with the pins, then fetches it again from a
// server that the pinned authorities vouch for, and wants the same.
//
// So kubeadm does (cmd/kubeadm/app/discovery/token), with one difference: the
// second time it trusts everything in the first answer, provided that one
// certificate in it is pinned. Whoever knows the token can put his own
// authority beside the pinned one and pass. Here only what is pinned vouches.
func Discover(ctx context.Context, fetch Fetch, d Discovery) (*ClusterInfo, error) {
	if len(d.Pins) == 0 && !d.Unpinned {
		return nil, errors.New("discovering the cluster: no pin of its authority is given, and going without one is not allowed")
	}
	info, err := d.attempt(ctx, fetch, nil)
	if err != nil {
		return nil, fmt.Errorf("cluster-info of %s: %w", d.Endpoint, err)
	}
	anchors := info.Anchors
	if len(d.Pins) > 0 {
		if anchors = info.Pinned(d.Pins); len(anchors) == 0 {
			return nil, fmt.Errorf("cluster-info of %s: %w", d.Endpoint, ErrNotPinned)
		}
	}
	again, err := d.attempt(ctx, fetch, anchors)
	if err != nil {
		return nil, fmt.Errorf("cluster-info of %s, asked again over verified TLS: %w", d.Endpoint, err)
	}
	if !bytes.Equal(info.Kubeconfig, again.Kubeconfig) {
		return nil, fmt.Errorf("cluster-info of %s is not the same when asked again over verified TLS", d.Endpoint)
	}
	return again, nil
}

// attempt fetches and reads, again and again where time may help.
func (d *Discovery) attempt(ctx context.Context, fetch Fetch, anchors []*x509.Certificate) (*ClusterInfo, error) {
	for {
		data, err := fetch(ctx, d.Endpoint, anchors)
		if err == nil {
			var info *ClusterInfo
			if info, err = ReadClusterInfo(data, d.Token); err == nil || !errors.Is(err, ErrNotSigned) {
				return info, err
			}
		}
		if untrusted := new(tls.CertificateVerificationError); errors.As(err, &untrusted) || d.Retry <= 0 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(d.Retry):
		}
	}
}
