package frontproxy_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// authority makes a root.
func authority(name string) issue.Authority { return tlstest.Authority(tlstest.Panics, name) }

// certify certifies the key of an authority by another one.
func certify(a, by issue.Authority) issue.Authority {
	return tlstest.Certify(tlstest.Panics, a.Certificate.Subject.CommonName, a.Key, by)
}

// leaf makes a certificate that lives an hour.
func leaf(a issue.Authority, usage x509.ExtKeyUsage, name string, groups ...string) tls.Certificate {
	return *tlstest.Leaf(tlstest.Panics, a, name, tlstest.In(groups...), tlstest.At("hello.default.svc"), tlstest.For(usage))
}

func client(a issue.Authority, name string, groups ...string) tls.Certificate {
	return leaf(a, x509.ExtKeyUsageClientAuth, name, groups...)
}

func bundle(all ...issue.Authority) *mtls.Bundle { return tlstest.Bundle(tlstest.Panics, all...) }

func pemOf(all ...issue.Authority) string { return string(tlstest.PEM(all...)) }

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
