package kubesign_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kubesign"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	serves = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	calls  = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	node   = pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}
)

// TestWhichSignerSignsWhat: each row with its twin that another signer, or none, signs.
func TestWhichSignerSignsWhat(t *testing.T) {
	ca, etcd, proxy := trust.Place{Path: "ca.crt"}, trust.Place{Path: "etcd/ca.crt"}, trust.Place{Path: "front-proxy-ca.crt"}
	g := &trust.Graph{Authorities: []trust.Authority{
		{Name: catalog.EtcdCA, Certificate: etcd}, {Name: catalog.FrontProxyCA, Certificate: proxy}, {Name: "ca", Certificate: ca},
	}}
	for name, row := range map[string]struct {
		item   renew.Item
		signer string
		reason string
	}{
		"a component that calls":                {renew.Item{Issuer: ca, Usages: calls, Subject: pkix.Name{CommonName: "system:kube-scheduler"}}, csr.KubeAPIServerClientSigner, ""},
		"a kubelet that calls":                  {renew.Item{Issuer: ca, Usages: calls, Subject: node}, csr.KubeAPIServerClientKubeletSigner, ""},
		"a kubelet that calls, with a name":     {renew.Item{Issuer: ca, Usages: calls, Subject: node, DNSNames: []string{"w1"}}, csr.KubeAPIServerClientSigner, ""},
		"a node's name in another group":        {renew.Item{Issuer: ca, Usages: calls, Subject: pkix.Name{CommonName: node.CommonName, Organization: []string{"others"}}}, csr.KubeAPIServerClientSigner, ""},
		"a kubelet that serves":                 {renew.Item{Issuer: ca, Usages: serves, Subject: node, DNSNames: []string{"w1"}}, csr.KubeletServingSigner, ""},
		"a kubelet that serves at an address":   {renew.Item{Issuer: ca, Usages: serves, Subject: node, Addresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, csr.KubeletServingSigner, ""},
		"a kubelet that serves under no name":   {renew.Item{Issuer: ca, Usages: serves, Subject: node}, "", "no built-in signer signs it"},
		"the API server":                        {renew.Item{Issuer: ca, Usages: serves, Subject: pkix.Name{CommonName: "kube-apiserver"}, DNSNames: []string{"kubernetes"}}, "", "no built-in signer signs it"},
		"one that serves and calls":             {renew.Item{Issuer: ca, Usages: slices.Concat(serves, calls), Subject: node, DNSNames: []string{"w1"}}, "", "in one certificate"},
		"an administrator":                      {renew.Item{Issuer: ca, Usages: calls, Subject: pkix.Name{CommonName: "admin", Organization: []string{"dev", "system:masters"}}}, "", "system:masters"},
		"an administrator of another group":     {renew.Item{Issuer: ca, Usages: calls, Subject: pkix.Name{CommonName: "admin", Organization: []string{"dev"}}}, csr.KubeAPIServerClientSigner, ""},
		"a client of etcd":                      {renew.Item{Issuer: etcd, Usages: calls, Subject: pkix.Name{CommonName: "healthcheck"}}, "", catalog.EtcdCA},
		"the front proxy":                       {renew.Item{Issuer: proxy, Usages: calls, Subject: pkix.Name{CommonName: "front-proxy-client"}}, "", catalog.FrontProxyCA},
		"one of an authority that is not known": {renew.Item{Issuer: trust.Place{Path: "other.crt"}, Usages: calls, Subject: pkix.Name{CommonName: "x"}}, csr.KubeAPIServerClientSigner, ""},
	} {
		signer, reason := kubesign.SignerFor(g, &row.item)
		if signer != row.signer || !strings.Contains(reason, row.reason) || (reason == "") != (row.reason == "") {
			t.Errorf("%s: %q, %q; want %q, %q", name, signer, reason, row.signer, row.reason)
		}
	}
}

const token = "abcdef.0123456789abcdef"

// world is an API server, a client of it, and what the client has sent.
type world struct {
	server *apitest.Server
	client kubernetes.Interface
	sent   []string
	// answers, where it is set, answers in the place of the server; nil: it passes on.
	answers func(*http.Request, []byte) *http.Response
}

func (w *world) RoundTrip(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	w.sent = append(w.sent, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	if w.answers != nil {
		if a := w.answers(r, body); a != nil {
			return a, nil
		}
	}
	return next.RoundTrip(r)
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func start(t *testing.T, answer apitest.Answer) *world {
	t.Helper()
	server, err := apitest.Start(token)
	check(t, err)
	t.Cleanup(server.Close)
	server.Answer(answer)
	w := &world{server: server}
	w.client, err = kubernetes.NewForConfig(&rest.Config{
		Host: server.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: server.CA},
		WrapTransport: func(next http.RoundTripper) http.RoundTripper {
			return tripper(func(r *http.Request) (*http.Response, error) { return w.RoundTrip(r, next) })
		},
	})
	check(t, err)
	return w
}

func ask(t *testing.T, algorithm issue.Algorithm, life time.Duration) *kubesign.Asked {
	t.Helper()
	key, err := issue.GenerateKey(algorithm)
	check(t, err)
	now := time.Now()
	i := &renew.Item{Subject: node, Usages: calls, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(life), Algorithm: algorithm}
	request, err := i.Request(key)
	check(t, err)
	return &kubesign.Asked{Item: i, Signer: csr.KubeAPIServerClientKubeletSigner, Request: request}
}

func TestWhatIsSent(t *testing.T) {
	w := start(t, apitest.Wait)
	for _, row := range []struct {
		name    string
		asked   *kubesign.Asked
		usages  []certificatesv1.KeyUsage
		seconds int32
	}{
		{"an ECDSA key", ask(t, issue.ECDSAP256, time.Hour), []certificatesv1.KeyUsage{"digital signature", "client auth"}, 3600},
		{"an RSA key", ask(t, issue.RSA2048, time.Hour), []certificatesv1.KeyUsage{"digital signature", "key encipherment", "client auth"}, 3600},
		{"a life that is shorter than the API takes", ask(t, issue.ECDSAP256, time.Minute), []certificatesv1.KeyUsage{"digital signature", "client auth"}, 600},
	} {
		again, err := row.asked.Send(t.Context(), w.client)
		check(t, err)
		o := w.server.Requests()[len(w.server.Requests())-1]
		if again || !slices.Equal(o.Spec.Usages, row.usages) || o.Spec.SignerName != csr.KubeAPIServerClientKubeletSigner || *o.Spec.ExpirationSeconds < row.seconds-2 || *o.Spec.ExpirationSeconds > row.seconds {
			t.Errorf("%s: %t, %+v, %d seconds", row.name, again, o.Spec, *o.Spec.ExpirationSeconds)
		}
		if row.asked.State != csr.Pending || !strings.Contains(row.asked.Needs(), "kubepki csr approve "+o.Name) {
			t.Errorf("%s: it is %s, and needs %q", row.name, row.asked.State, row.asked.Needs())
		}
	}
}

func TestAnotherRunFindsTheRequestAndNobodyElses(t *testing.T) {
	w := start(t, apitest.Wait)
	first := ask(t, issue.ECDSAP256, time.Hour)
	_, err := first.Send(t.Context(), w.client)
	check(t, err)
	second := &kubesign.Asked{Item: first.Item, Signer: first.Signer, Request: first.Request}
	again, err := second.Send(t.Context(), w.client)
	check(t, err)
	if !again || second.Object.UID != first.Object.UID || len(w.server.Requests()) != 1 {
		t.Errorf("found again: %t, %d requests", again, len(w.server.Requests()))
	}
	// The same name for another signer's request: somebody has made it by hand.
	usages := *first.Item
	usages.Usages = serves
	third := &kubesign.Asked{Item: &usages, Signer: first.Signer, Request: first.Request}
	var foreign *kubesign.ForeignError
	if _, err := third.Send(t.Context(), w.client); !errors.As(err, &foreign) || !strings.Contains(foreign.Hint(), "kubectl delete csr "+first.Object.Name) || third.Object != nil {
		t.Errorf("somebody else's is taken: %v", err)
	}
}

func TestARehearsalIsADryRun(t *testing.T) {
	w := start(t, apitest.Wait)
	check(t, ask(t, issue.ECDSAP256, time.Hour).Rehearse(t.Context(), w.client))
	if len(w.sent) != 1 || !strings.Contains(w.sent[0], "dryRun=All") {
		t.Errorf("sent: %q", w.sent)
	}
	w.server.Down(true)
	if err := ask(t, issue.ECDSAP256, time.Hour).Rehearse(t.Context(), w.client); err == nil {
		t.Error("an API server that is away refuses nothing")
	}
}

func TestAnApproval(t *testing.T) {
	w := start(t, apitest.Wait)
	i := ask(t, issue.ECDSAP256, time.Hour)
	_, err := i.Send(t.Context(), w.client)
	check(t, err)
	approval := ""
	w.answers = func(r *http.Request, body []byte) *http.Response {
		if r.Method != http.MethodPut {
			return nil
		}
		approval = r.URL.Path + " " + string(body)
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"kind":"CertificateSigningRequest","apiVersion":"certificates.k8s.io/v1"}`)), Request: r}
	}
	check(t, i.Approve(t.Context(), w.client, "renew"))
	if !strings.Contains(approval, i.Object.Name+"/approval") || !strings.Contains(approval, "approved by kubepki renew") {
		t.Errorf("written: %q", approval)
	}
	approval = ""
	w.server.Answer(apitest.Deny)
	if err := i.Approve(t.Context(), w.client, "renew"); err != nil || approval != "" {
		t.Errorf("what somebody has denied: %v, %q", err, approval)
	}
	w.server.Down(true)
	if i.Approve(t.Context(), w.client, "renew") == nil {
		t.Error("an API server that is away is no error")
	}
}

func TestWhatBecomesOfARequest(t *testing.T) {
	for name, row := range map[string]struct {
		answer apitest.Answer
		state  csr.State
		reason string
		chain  int
	}{
		"issued":   {apitest.Issue, csr.Issued, "", 1},
		"denied":   {apitest.Deny, csr.Denied, "is denied: not this one", 0},
		"failed":   {apitest.Fail, csr.Failed, "is failed: the signer is ill", 0},
		"waits":    {apitest.Wait, csr.Pending, "", 0},
		"unsigned": {apitest.Approve, csr.Approved, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, row.answer)
			i := ask(t, issue.ECDSAP256, time.Hour)
			_, err := i.Send(t.Context(), w.client)
			check(t, err)
			ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer stop()
			i.Await(ctx, w.client)
			if i.State != row.state || !strings.HasSuffix(i.Reason, row.reason) || (i.Reason == "") != (row.reason == "") || len(i.Chain) != row.chain {
				t.Errorf("%s, %q, %d certificates", i.State, i.Reason, len(i.Chain))
			}
			if row.state == csr.Approved && !strings.Contains(i.Needs(), "nobody has signed it") {
				t.Errorf("it needs %q", i.Needs())
			}
		})
	}
}

func TestACertificateIsProvedBeforeItIsUsed(t *testing.T) {
	w := start(t, apitest.Issue)
	spec := layout.KubeconfigSpec{Server: w.server.URL, CA: w.server.CA}
	made := func(subject pkix.Name) renew.Made {
		t.Helper()
		certificate, text, err := w.server.Issue(subject, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		check(t, err)
		chain, err := trust.ParseCertificates(certificate)
		check(t, err)
		key, err := issue.ParsePrivateKey(text)
		check(t, err)
		return renew.Made{Chain: chain, Key: key}
	}
	item := &renew.Item{Subject: node}
	check(t, kubesign.Prove(t.Context(), spec, item, made(node)))
	for name, subject := range map[string]pkix.Name{
		"another user":           {CommonName: "system:node:w2", Organization: node.Organization},
		"one without the groups": {CommonName: node.CommonName},
	} {
		if err := kubesign.Prove(t.Context(), spec, item, made(subject)); err == nil || !strings.Contains(err.Error(), "wanted is") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.server.Distrust(true)
	if err := kubesign.Prove(t.Context(), spec, item, made(node)); err == nil || !strings.Contains(err.Error(), "does not take the new certificate") {
		t.Errorf("one that the API server does not take: %v", err)
	}
}
