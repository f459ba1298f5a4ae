package bootstrap_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/trust"
)

// authority makes a self-signed authority.
func authority(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func token(t testing.TB, text string) bootstrap.Token {
	t.Helper()
	parsed, err := bootstrap.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const server = "https://10.0.0.11:6443"

// clusterInfo is the data of cluster-info, signed with some tokens.
func clusterInfo(t testing.TB, ca []*x509.Certificate, tokens ...bootstrap.Token) map[string]string {
	t.Helper()
	kubeconfig, err := bootstrap.ClusterInfoKubeconfig(server, trust.EncodeCertificates(ca...))
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, string(kubeconfig), tokens...)
}

func signed(t testing.TB, kubeconfig string, tokens ...bootstrap.Token) map[string]string {
	t.Helper()
	data := map[string]string{"kubeconfig": kubeconfig}
	for _, k := range tokens {
		signature, err := bootstrap.Sign([]byte(kubeconfig), k)
		if err != nil {
			t.Fatal(err)
		}
		data[bootstrap.SignatureKey(k.ID())] = signature
	}
	return data
}

// apiServer answers as a server does that shows a certificate of an authority.
func apiServer(owner *x509.Certificate, data map[string]string) bootstrap.Fetch {
	return func(_ context.Context, _ string, anchors []*x509.Certificate) (map[string]string, error) {
		for _, a := range anchors {
			if a.Equal(owner) {
				return data, nil
			}
		}
		if len(anchors) > 0 {
			return nil, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
		}
		return data, nil
	}
}

func TestDiscover(t *testing.T) {
	k := token(t, "abcdef.0123456789abcdef")
	thief := token(t, "abcdef.aaaaaaaaaaaaaaaa")
	ours, next, evil := authority(t), authority(t), authority(t)
	both := []*x509.Certificate{ours, next}
	pins := bootstrap.Pins([]*x509.Certificate{ours})
	with := func(data map[string]string, key, value string) map[string]string {
		changed := maps.Clone(data)
		changed[key] = value
		return changed
	}
	good := clusterInfo(t, []*x509.Certificate{ours}, k)
	for name, test := range map[string]struct {
		owner *x509.Certificate
		data  map[string]string
		pins  []bootstrap.Pin
		open  bool
		want  string // of the error; empty: none
		is    error
	}{
		"the cluster of the token and the pin":                 {owner: ours, data: good, pins: pins},
		"one of several pins is enough":                        {owner: ours, data: good, pins: []bootstrap.Pin{bootstrap.PinOf(evil), bootstrap.PinOf(ours)}},
		"a rotation: two authorities, the old one serves":      {owner: ours, data: clusterInfo(t, both, k), pins: pins},
		"a rotation: two authorities and pins, the new serves": {owner: next, data: clusterInfo(t, both, k), pins: bootstrap.Pins(both)},
		"no pin, allowed":                                      {owner: ours, data: good, open: true},
		"no pin, not allowed":                                  {owner: ours, data: good, want: "no pin of its authority is given"},
		"another cluster with the same token":                  {owner: evil, data: clusterInfo(t, []*x509.Certificate{evil}, k), pins: pins, is: bootstrap.ErrNotPinned},
		"whoever knows the token adds his own authority":       {owner: evil, data: clusterInfo(t, []*x509.Certificate{ours, evil}, k), pins: pins, want: "unknown authority"},
		"whoever knows the token copies the true answer":       {owner: evil, data: good, pins: pins, want: "unknown authority"},
		"no pin, and the server is not that of the answer":     {owner: evil, data: good, open: true, want: "unknown authority"},
		"signed with another secret":                           {owner: ours, data: clusterInfo(t, []*x509.Certificate{ours}, thief), pins: pins, is: bootstrap.ErrSignature},
		"a signature with one character changed":               {owner: ours, data: with(good, "jws-kubeconfig-abcdef", good["jws-kubeconfig-abcdef"]+"A"), pins: pins, is: bootstrap.ErrSignature},
		"content changed after it was signed":                  {owner: ours, data: with(good, "kubeconfig", good["kubeconfig"]+"\n"), pins: pins, is: bootstrap.ErrSignature},
		"signed with other tokens alone":                       {owner: ours, data: clusterInfo(t, []*x509.Certificate{ours}), pins: pins, is: bootstrap.ErrNotSigned},
		"no kubeconfig":                                        {owner: ours, data: map[string]string{}, pins: pins, is: bootstrap.ErrNoClusterInfo},
		"a kubeconfig that is none":                            {owner: ours, data: signed(t, "kind: [", k), pins: pins, want: "kubeconfig: "},
		"a kubeconfig without a cluster":                       {owner: ours, data: signed(t, "kind: Config\napiVersion: v1\n", k), pins: pins, want: "no cluster without a name"},
		"a server in plain text":                               {owner: ours, data: signed(t, strings.Replace(good["kubeconfig"], "https:", "http:", 1), k), pins: pins, want: "is not a URL"},
		"a CA in a file":                                       {owner: ours, data: signed(t, "kind: Config\napiVersion: v1\nclusters: [{name: '', cluster: {server: 'https://a', certificate-authority: /etc/shadow}}]\n", k), pins: pins, want: "certificate-authority-data: no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := bootstrap.Discover(t.Context(), apiServer(test.owner, test.data), bootstrap.Discovery{Endpoint: "10.0.0.11:6443", Token: k, Pins: test.pins, Unpinned: test.open})
			switch {
			case test.want == "" && test.is == nil:
				if err != nil {
					t.Fatal(err)
				}
				if info.Server != server || string(info.Kubeconfig) != test.data["kubeconfig"] {
					t.Errorf("server %s, kubeconfig\n%s", info.Server, info.Kubeconfig)
				}
			case err == nil:
				t.Fatal("it was believed")
			case test.is != nil && !errors.Is(err, test.is):
				t.Errorf("want %q, got %q", test.is, err)
			case !strings.Contains(err.Error(), test.want):
				t.Errorf("want %q, got %q", test.want, err)
			case strings.Contains(err.Error(), "0123456789abcdef"):
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestDiscoverWantsTheSameTwice(t *testing.T) {
	k, ours := token(t, "abcdef.0123456789abcdef"), authority(t)
	first, second := clusterInfo(t, []*x509.Certificate{ours}, k), clusterInfo(t, []*x509.Certificate{ours, authority(t)}, k)
	_, err := bootstrap.Discover(t.Context(), func(_ context.Context, _ string, anchors []*x509.Certificate) (map[string]string, error) {
		if len(anchors) == 0 {
			return first, nil
		}
		return second, nil
	}, bootstrap.Discovery{Token: k, Pins: bootstrap.Pins([]*x509.Certificate{ours})})
	if err == nil || !strings.Contains(err.Error(), "is not the same") {
		t.Errorf("got %v", err)
	}
}

func TestDiscoverWaitsForTheServerAndTheSignature(t *testing.T) {
	k, ours := token(t, "abcdef.0123456789abcdef"), authority(t)
	d := bootstrap.Discovery{Token: k, Pins: bootstrap.Pins([]*x509.Certificate{ours}), Retry: 5 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		fetch := func(context.Context, string, []*x509.Certificate) (map[string]string, error) {
			switch since := time.Since(begin); {
			case since < 20*time.Second:
				return nil, errors.New("connection refused")
			case since < 40*time.Second:
				return clusterInfo(t, []*x509.Certificate{ours}), nil
			}
			return clusterInfo(t, []*x509.Certificate{ours}, k), nil
		}
		if _, err := bootstrap.Discover(t.Context(), fetch, d); err != nil || time.Since(begin) != 40*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		// Time heals neither a wrong signature nor a stranger.
		begin = time.Now()
		for _, owner := range []*x509.Certificate{ours, nil} {
			data := clusterInfo(t, []*x509.Certificate{ours}, k)
			if owner != nil {
				data["kubeconfig"] += "\n"
			}
			if _, err := bootstrap.Discover(t.Context(), apiServer(owner, data), d); err == nil || time.Since(begin) != 0 {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
		}
		// The last error is the one that is told when time is up.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := bootstrap.Discover(ctx, apiServer(ours, clusterInfo(t, []*x509.Certificate{ours})), d)
		if !errors.Is(err, bootstrap.ErrNotSigned) || time.Since(begin) != time.Minute {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

func caPEM(c *x509.Certificate) []byte { return trust.EncodeCertificates(c) }
