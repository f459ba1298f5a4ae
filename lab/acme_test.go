//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/miekg/dns"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/internal/acmeissuer"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// acmeLab is a real API server with cert-manager's CRDs, Debian's pebble, and the ACME
// issuer as the account of its manifest.
type acmeLab struct {
	cluster *controlPlane
	admin   kubernetes.Interface
	orders  *acmeissuer.Orders
	issuer  *cmapi.ClusterIssuer
	// answering is the port at which pebble looks.
	answering net.Listener
}

func startACME(t *testing.T) *acmeLab {
	t.Helper()
	pebble, err := exec.LookPath("pebble")
	if err != nil {
		t.Skip("pebble is not here to issue certificates: make deps installs it")
	}
	c := &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}
	node := addNode(t, newNetwork(t), "cp1", c.path("cp1", ""), "10.99.0.11/24")
	c.nodes = append(c.nodes, node)
	etcd, apiserver := start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver")
	ready(t, etcd, apiserver)
	c.admin = c.conf(t, "super-admin")
	modules, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(modules))
	for _, files := range []string{filepath.Join(dirs[0], "deploy", "crds"), filepath.Join("..", "deploy", "controller-workloads-rbac.yaml"), filepath.Join("..", "deploy", "controller-acme-rbac.yaml")} {
		if out, err := kubectl(t, c, "apply", "--server-side", "-f", files); err != nil {
			t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
		}
	}
	if out, err := kubectl(t, c, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
	a := &acmeLab{cluster: c, admin: c.client(t)}
	a.startPebble(t, pebble)
	config := rest.CopyConfig(c.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kubepki:kubepki-controller", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	client, err := acmeissuer.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	a.orders = acmeissuer.New(client, acmeissuer.Settings{
		ClusterNamespace: "default", UserAgent: "kubepki/lab", Now: time.Now,
		Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("fd00::1")}, Port: 8089,
	})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { _ = a.orders.Solvers.Tokens.Serve(ctx, a.answering) }()
	return a
}

// startPebble starts pebble and a resolver for which every name is this machine, and
// makes the issuer for it.
func (a *acmeLab) startPebble(t *testing.T, program string) {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a.answering = listen()
	l := listen()
	address := l.Addr().String()
	_ = l.Close()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resolver := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		if q := r.Question[0]; q.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = resolver.ActivateAndServe() }()
	t.Cleanup(func() { _ = resolver.Shutdown() })

	dir := t.TempDir()
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
	text, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := trust.EncodeCertificates(serving)
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "httpPort": a.answering.Addr().(*net.TCPAddr).Port, "tlsPort": 1,
		"certificate": write(t, filepath.Join(dir, "cert.pem"), string(bundle)), "privateKey": write(t, filepath.Join(dir, "key.pem"), string(text)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program, "-config", write(t, filepath.Join(dir, "config.json"), string(settings)), "-dnsserver", packets.LocalAddr().String())
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
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
		response, err := web.Get("https://" + address + "/dir")
		if err == nil {
			err = response.Body.Close()
		}
		return err
	})
	a.issuer = &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "pebble", UID: "issuer-1", Generation: 1}}
	a.issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server: "https://" + address + "/dir", CABundle: bundle, PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{{
			// Names of the test are nobody's: pebble alone resolves them.
			WaitInsteadOfSelfCheck: &metav1.Duration{},
			HTTP01:                 &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: new("nginx")}},
		}},
	}
}

func (a *acmeLab) asking(t *testing.T, name string, names ...string) *cmapi.CertificateRequest {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	r, err := issue.Request(issue.Template{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec:       cmapi.CertificateRequestSpec{Request: issue.EncodeRequest(r), IssuerRef: cmmeta.IssuerReference{Name: "pebble", Kind: cmapi.ClusterIssuerKind, Group: "cert-manager.io"}},
	}
}

// left counts what there is of an order's objects.
func (a *acmeLab) left(t *testing.T) int {
	t.Helper()
	options := metav1.ListOptions{LabelSelector: cmacme.SolverIdentificationLabelKey + "=true"}
	services, err := a.admin.CoreV1().Services("default").List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	slices, err := a.admin.DiscoveryV1().EndpointSlices("default").List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ingresses, err := a.admin.NetworkingV1().Ingresses("default").List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return len(services.Items) + len(slices.Items) + len(ingresses.Items)
}

func TestACMEIssuerOnARealAPIServer(t *testing.T) {
	a := startACME(t)
	s, err := a.orders.Accounts.Verify(t.Context(), a.issuer)
	if err != nil || s.Condition.Status != cmmeta.ConditionTrue {
		t.Fatalf("%+v %v", s, err)
	}
	a.issuer.Status.ACME, a.issuer.Status.Conditions = &s.Status, []cmapi.IssuerCondition{s.Condition}
	if _, err := a.admin.CoreV1().Secrets("default").Get(t.Context(), "account", metav1.GetOptions{}); err != nil {
		t.Error("the account's key is not where ClusterIssuers have theirs:", err)
	}
	made := 0
	issued := func(t *testing.T, cr *cmapi.CertificateRequest) {
		t.Helper()
		eventually(t, cr.Name+" is issued", func(context.Context) error {
			answer, err := a.orders.Step(t.Context(), cr, a.issuer)
			made = max(made, a.left(t))
			switch {
			case err != nil:
				t.Fatal(err)
			case answer.Verdict == acmeissuer.Failed:
				t.Fatal(answer.Message)
			case answer.Verdict == acmeissuer.Issued:
				return nil
			}
			return errPending(answer.Message)
		})
		if n := a.left(t); n > 0 {
			t.Errorf("%d objects are left", n)
		}
	}
	t.Run("an ingress of its own", func(t *testing.T) {
		issued(t, a.asking(t, "own", "a.lab.test", "b.lab.test"))
		if made != 8 {
			t.Errorf("%d objects were made at most: two names need a service, two slices and an ingress each", made)
		}
	})
	t.Run("an ingress that is there", func(t *testing.T) {
		shop := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "shop", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}}}
		if _, err := a.admin.NetworkingV1().Ingresses("default").Create(t.Context(), shop, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		a.issuer.Spec.ACME.Solvers[0].HTTP01.Ingress = &cmacme.ACMEChallengeSolverHTTP01Ingress{Name: "shop", ServiceType: "ClusterIP"}
		issued(t, a.asking(t, "there", "shop.lab.test"))
		after, err := a.admin.NetworkingV1().Ingresses("default").Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil || len(after.Spec.Rules) > 0 || after.Generation < 3 {
			t.Errorf("the ingress was not edited and put back: generation %d, %+v %v", after.Generation, after.Spec.Rules, err)
		}
	})
	t.Run("a cluster without the Gateway API", func(t *testing.T) {
		a.issuer.Spec.ACME.Solvers[0].HTTP01 = &cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{}}
		cr := a.asking(t, "route", "route.lab.test")
		cr.Annotations = map[string]string{cmacme.ACMECertificateHTTP01ParentRefName: "front", cmacme.ACMECertificateHTTP01ParentRefKind: "Gateway"}
		answer, err := a.orders.Step(t.Context(), cr, a.issuer)
		if err != nil || answer.Verdict != acmeissuer.Pending || !strings.Contains(answer.Message, "install the Gateway API") {
			t.Errorf("%+v %v", answer, err)
		}
	})
}

// TestCertificatesByACME has kubepki controller do the whole: an Issuer, a Certificate, and
// what answers for its names.
func TestCertificatesByACME(t *testing.T) {
	a := startACME(t)
	port := a.answering.Addr().(*net.TCPAddr).Port
	_ = a.answering.Close()
	a.startController(t, port)
	a.issuer.TypeMeta = metav1.TypeMeta{APIVersion: "cert-manager.io/v1", Kind: cmapi.ClusterIssuerKind}
	a.issuer.ObjectMeta = metav1.ObjectMeta{Name: "pebble"}
	certificate := &cmapi.Certificate{
		TypeMeta: metav1.TypeMeta{APIVersion: "cert-manager.io/v1", Kind: cmapi.CertificateKind}, ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "default"},
		Spec: cmapi.CertificateSpec{
			SecretName: "shop-tls", DNSNames: []string{"shop.lab.test", "www.lab.test"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble", Kind: cmapi.ClusterIssuerKind},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
	for _, o := range []any{a.issuer, certificate} {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := kubectl(t, a.cluster, "apply", "-f", write(t, filepath.Join(a.cluster.dir, "object.json"), string(text))); err != nil {
			t.Fatalf("%v\n%s", err, out.stderr)
		}
	}
	if out, err := kubectl(t, a.cluster, "wait", "--for=condition=Ready", "certificate/shop", "--timeout=60s"); err != nil {
		all, _ := kubectl(t, a.cluster, "get", "clusterissuers,certificates,certificaterequests,orders,challenges", "-o", "yaml")
		t.Fatalf("%v\n%s%s", err, out.stderr, all.stdout)
	}
	secret, err := a.admin.CoreV1().Secrets("default").Get(t.Context(), "shop-tls", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil || pair.Leaf.VerifyHostname("www.lab.test") != nil || len(pair.Certificate) < 2 {
		t.Errorf("the Secret holds no chain with key for its names: %v", err)
	}
	if _, there := secret.Data["ca.crt"]; there {
		t.Error("ACME tells no root, and there is a ca.crt")
	}
	if n := a.left(t); n > 0 {
		t.Errorf("%d objects of HTTP-01 are left", n)
	}
}

// startController runs kubepki controller as the account of the manifests, in the place
// where pebble looks.
func (a *acmeLab) startController(t *testing.T, port int) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(a.cluster.path("cp1", "etc/kubernetes/super-admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate, user.ImpersonateGroups = "system:serviceaccount:kubepki:kubepki-controller", []string{"system:serviceaccounts", "system:authenticated"}
	}
	file := filepath.Join(t.TempDir(), "controller.conf")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), filepath.Join(programs, "kubepki"), "controller", "--kubeconfig="+file, "--enable=workloads,acme", "--leader-elect=false",
		"--cluster-resource-namespace=default", "--listen=", "--acme-http01-address=10.99.0.1:"+strconv.Itoa(port))
	var log bytes.Buffer
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("controller:\n%s", log.String())
		}
	})
}

// errPending is why a request is not answered yet.
type errPending string

func (e errPending) Error() string { return string(e) }
