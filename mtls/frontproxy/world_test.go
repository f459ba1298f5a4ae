package frontproxy_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// authority makes a root that lives a year, or with above an authority below it.
func authority(name string, above ...issue.Authority) issue.Authority {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	template := issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}
	var c *x509.Certificate
	if len(above) > 0 {
		c, err = issue.Sign(template, key.Public(), above[0])
	} else {
		c, err = issue.SelfSign(template, key)
	}
	check(err)
	return issue.Authority{Certificate: c, Key: key}
}

// again certifies the key of an authority by another one.
func again(a, by issue.Authority) issue.Authority {
	c, err := issue.Sign(issue.Template{Subject: a.Certificate.Subject, Authority: true, NotBefore: a.Certificate.NotBefore, NotAfter: a.Certificate.NotAfter}, a.Key.Public(), by)
	check(err)
	return issue.Authority{Certificate: c, Key: a.Key}
}

// leaf makes a certificate that lives an hour.
func leaf(a issue.Authority, usage x509.ExtKeyUsage, name string, groups ...string) tls.Certificate {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: name, Organization: groups}, DNSNames: []string{"hello.default.svc"}, Usages: []x509.ExtKeyUsage{usage},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}, key.Public(), a)
	check(err)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func client(a issue.Authority, name string, groups ...string) tls.Certificate {
	return leaf(a, x509.ExtKeyUsageClientAuth, name, groups...)
}

func bundle(all ...issue.Authority) *mtls.Bundle {
	var anchors []*x509.Certificate
	for _, a := range all {
		anchors = append(anchors, a.Certificate)
	}
	b, err := mtls.NewBundle(anchors...)
	check(err)
	return b
}

func pemOf(all ...issue.Authority) string {
	var b bytes.Buffer
	for _, a := range all {
		b.Write(trust.EncodeCertificates(a.Certificate))
	}
	return b.String()
}

// world is a cluster's authorities, and a guard with its settings.
type world struct {
	cluster, proxies, servers issue.Authority
	settings                  *frontproxy.Settings
	log                       bytes.Buffer
}

func newWorld() *world {
	w := &world{cluster: authority("kubernetes-ca"), proxies: authority("front-proxy-ca"), servers: authority("servers")}
	w.settings = &frontproxy.Settings{
		Bundle: bundle(w.proxies), AllowedNames: []string{"front-proxy-client"}, ClientBundle: bundle(w.cluster),
		UserHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"},
	}
	return w
}

func (w *world) guard(s frontproxy.Source) *frontproxy.Guard {
	return &frontproxy.Guard{Settings: s, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
}

// seen is what a handler has found.
type seen struct {
	status int
	caller *frontproxy.Caller
	header http.Header
	close  bool
}

// request is one as net/http gives it to a handler, of a connection that shows a
// certificate.
func request(show *tls.Certificate, headers map[string][]string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "https://hello.default.svc/", nil)
	r.TLS = nil
	if show != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{show.Leaf}}
	}
	for name, values := range headers {
		r.Header[name] = values
	}
	return r
}

func ask(g *frontproxy.Guard, r *http.Request) seen {
	var s seen
	h := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		caller, ok := frontproxy.FromContext(r.Context())
		if ok {
			s.caller = &caller
		}
		s.header = r.Header
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	s.status, s.close = w.Code, w.Header().Get("Connection") == "close"
	return s
}
