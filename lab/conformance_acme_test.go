//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// externalKey is known to pebble as that of the external account kid-1.
var externalKey = base64.RawURLEncoding.EncodeToString([]byte("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"))

// acmeWorld is a pebble that asks one name server for everything, and where the
// controller answers it.
type acmeWorld struct {
	directory string
	bundle    []byte
	names     *labNames
	answering string // port of HTTP-01
}

// labNames is the name server of lab.test: every name is this machine, and anybody may
// write texts.
type labNames struct {
	address string

	mu    sync.Mutex
	texts map[string][]string
}

func startNames(t *testing.T) *labNames {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &labNames{address: packets.LocalAddr().String(), texts: map[string][]string{}}
	server := &dns.Server{PacketConn: packets, Handler: n, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return n
}

func (n *labNames) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	const zone = "lab.test."
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg).SetReply(r)
	if r.Opcode == dns.OpcodeUpdate {
		for _, rr := range r.Ns {
			if txt, ok := rr.(*dns.TXT); ok {
				name, value := strings.ToLower(txt.Hdr.Name), strings.Join(txt.Txt, "")
				n.texts[name] = slices.DeleteFunc(n.texts[name], func(v string) bool { return v == value })
				if txt.Hdr.Class == dns.ClassINET {
					n.texts[name] = append(n.texts[name], value)
				}
			}
		}
		_ = w.WriteMsg(m)
		return
	}
	q := r.Question[0]
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch name := strings.ToLower(q.Name); {
	case q.Qtype == dns.TypeSOA && name == zone:
		m.Answer = append(m.Answer, &dns.SOA{Hdr: header, Ns: "ns." + zone, Mbox: "mail." + zone, Serial: 1, Minttl: 1})
	case q.Qtype == dns.TypeA && !strings.HasPrefix(name, "nowhere."):
		m.Answer = append(m.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
	case q.Qtype == dns.TypeTXT:
		for _, v := range n.texts[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{v}})
		}
	}
	_ = w.WriteMsg(m)
}

// freePort is one that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func startACMEWorld(t *testing.T) *acmeWorld {
	t.Helper()
	program, err := exec.LookPath("pebble")
	if err != nil {
		t.Skip("pebble is not here to issue certificates: make deps installs it")
	}
	a := &acmeWorld{names: startNames(t), answering: freePort(t)}
	address := "127.0.0.1:" + freePort(t)
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := issue.SelfSign(issue.Template{
		Addresses: []net.IP{net.IPv4(127, 0, 0, 1)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.bundle, a.directory = trust.EncodeCertificates(serving), "https://"+address+"/dir"
	dir := t.TempDir()
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "httpPort": json.Number(a.answering), "tlsPort": 1, "externalAccountMACKeys": map[string]string{"kid-1": externalKey},
		"certificate": write(t, filepath.Join(dir, "cert.pem"), string(a.bundle)), "privateKey": write(t, filepath.Join(dir, "key.pem"), string(encoded)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program, "-config", write(t, filepath.Join(dir, "config.json"), string(settings)), "-dnsserver", a.names.address)
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=5")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	pool := x509.NewCertPool()
	pool.AddCert(serving)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 5 * time.Second}
	eventually(t, "pebble answers", func(context.Context) error {
		response, err := web.Get(a.directory)
		if err == nil {
			err = response.Body.Close()
		}
		return err
	})
	return a
}

// issuer is the spec of an issuer with one solver. account names the Secret of its key,
// and external says that the account is bound to kid-1.
func (a *acmeWorld) issuer(account string, solver cmacme.ACMEChallengeSolver, external bool) *cmacme.ACMEIssuer {
	solver.WaitInsteadOfSelfCheck = &metav1.Duration{} // names of the lab are nobody's: pebble alone resolves them
	i := &cmacme.ACMEIssuer{
		Server: a.directory, CABundle: a.bundle, Email: "lab@example.org",
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: account}}, Solvers: []cmacme.ACMEChallengeSolver{solver},
	}
	if external {
		i.ExternalAccountBinding = &cmacme.ACMEExternalAccountBinding{
			KeyID: "kid-1", Key: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "external"}, Key: "key"},
		}
	}
	return i
}

func (a *acmeWorld) solvers() map[string]cmacme.ACMEChallengeSolver {
	kind := gatewayv1.Kind("Gateway")
	return map[string]cmacme.ACMEChallengeSolver{
		"HTTP-01": {HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		"HTTP-01 by Gateway": {HTTP01: &cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{
			ParentRefs: []gatewayv1.ParentReference{{Name: "front", Kind: &kind}},
		}}},
		"DNS-01": {DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: a.names.address}}},
	}
}
