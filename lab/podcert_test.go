//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// podCerts is a control plane, a worker, and the loops for pod certificates,
// which run as their own service account.
type podCerts struct {
	*controlPlane
	api    *kubernetes.Clientset // the administrator's
	self   *rest.Config          // the loops'
	source *podAuthority
	worker *worker
	stop   func() // the loops
}

// podAuthority is an authority that a test changes.
type podAuthority struct {
	mu      sync.Mutex
	current issue.Authority
}

func (a *podAuthority) Authority() (issue.Authority, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current, nil
}

func (a *podAuthority) replace(t *testing.T, name string) {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = issue.Authority{Certificate: c, Key: key}
}

// podCertGates are on by default since 1.37.
var podCertGates = map[string]bool{"PodCertificateRequest": true, "ClusterTrustBundle": true, "ClusterTrustBundleProjection": true}

func startPodCerts(t *testing.T) *podCerts {
	t.Helper()
	p := &podCerts{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256"), shape: "separate"}, source: &podAuthority{}}
	p.source.replace(t, "pods")
	network := newNetwork(t)
	node := addNode(t, network, "cp1", p.path("cp1", ""), "10.99.0.11/24")
	p.nodes = append(p.nodes, node)
	gates := []string{}
	for gate := range podCertGates {
		gates = append(gates, gate+"=true")
	}
	p.apiserver = start(t, node, "kube-apiserver", "--feature-gates="+strings.Join(gates, ","), "--runtime-config=certificates.k8s.io/v1beta1=true")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), p.apiserver)
	p.manager = start(t, node, "kube-controller-manager")
	p.admin = p.conf(t, "super-admin")
	p.api = p.client(t)
	startApprover(t, p.controlPlane)
	p.worker = startWorker(t, network, p.path("w1", ""), kubelet.Config{Name: "w1", Addresses: labNodes["w1"], FeatureGates: podCertGates})
	p.becomeServiceAccount(t)
	p.startLoops(t, "")
	nodeReady(t, p.api, "w1")
	return p
}

// becomeServiceAccount gives the loops the rights of the manifest, and a token.
func (p *podCerts) becomeServiceAccount(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kubepki"}}
	if _, err := p.api.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	accounts := p.api.CoreV1().ServiceAccounts("kubepki")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "kubepki-controller"}}
	if _, err := accounts.Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("..", "deploy", "podcerts-rbac.yaml")},
		// kube-apiserver may ask kubelets for logs then.
		{"create", "clusterrolebinding", "logs", "--clusterrole=system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client"},
	} {
		if out, err := kubectl(t, p.controlPlane, args...); err != nil {
			t.Fatalf("%v %s", err, out.stderr)
		}
	}
	token, err := accounts.CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.self = rest.AnonymousClientConfig(p.admin)
	p.self.WarningHandler = rest.NoWarnings{} // v1beta1 is old
	p.self.QPS, p.self.BearerToken = -1, token.Status.Token
	p.self.Timeout = 0 // of watches
}

// startLoops starts the loops with a version of the API, "" for the one that they
// choose.
func (p *podCerts) startLoops(t *testing.T, version string) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(p.self)
	policy := podcert.DefaultPolicy("lab.example")
	policy.KeyTypes = []string{"ECDSAP256", "ECDSAP384", "ED25519", "RSA4096"}
	var log bytes.Buffer // read when the loops have ended
	logger := slog.New(slog.NewTextHandler(&log, nil))
	loops := []interface{ Run(context.Context) error }{
		&controller.PodCertificates{Client: client, Source: p.source, Policy: policy, Version: version, Log: logger},
		&controller.TrustBundles{Client: client, Interval: 200 * time.Millisecond, Version: version, Log: logger, Bundles: []controller.TrustBundle{
			{SignerName: policy.SignerName, Name: "ca", Anchors: controller.Anchors(p.source)},
		}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, l := range loops {
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	p.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("loops:\n%s", &log)
		}
	})
}

func TestPodCertificates(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err)
	}
	p := startPodCerts(t)
	t.Run("pods know each other by the certificates that their kubelet mounts", p.testPods)
	t.Run("a kubelet that was killed gets new ones", p.testKubeletAgain)
	t.Run("requests that must be denied are", p.testDenials)
	t.Run("requests that must wait do", p.testUndecided)
	t.Run("what no policy may pass the API server refuses", p.testRefusals)
	t.Run("a signer without the right to sign signs nothing", p.testNoRight)
	t.Run("bundles are published with the right to attest alone", p.testBundles)
	t.Run("requests wait for a loop, and v1beta1 does as well", p.testV1beta1)
}

// serverScript and clientScript are pods that do mutual TLS with what is mounted.
const (
	tlsServer = `exec openssl s_server -accept 9443 -cert /pod/credentials.pem -key /pod/credentials.pem -CAfile /pod/anchors.pem -Verify 1 -verify_return_error -www -quiet`
	tlsClient = `while :; do
  echo | openssl s_client -connect 10.99.0.21:9443 -cert /pod/credentials.pem -key /pod/credentials.pem -CAfile /pod/anchors.pem -verify_return_error 2>&1 | grep -E 'Verify return code|alert|error'
  openssl x509 -in /pod/credentials.pem
  openssl pkey -in /pod/credentials.pem -pubout
  sleep 1
done`
)

// pod runs a script with a credential and the anchors.
func (p *podCerts) pod(t *testing.T, name, script string, source corev1.PodCertificateProjection) *corev1.Pod {
	t.Helper()
	source.SignerName, source.CredentialBundlePath = podcert.DefaultSignerName, "credentials.pem"
	projected := &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{PodCertificate: &source},
		{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{SignerName: ptr.To(podcert.DefaultSignerName), LabelSelector: &metav1.LabelSelector{}, Path: "anchors.pem"}},
	}}
	var pod *corev1.Pod
	eventually(t, "create pod "+name, func(ctx context.Context) (err error) {
		pod, err = p.api.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{
				HostNetwork: true, NodeName: "w1", TerminationGracePeriodSeconds: ptr.To[int64](1),
				Volumes: []corev1.Volume{{Name: "pki", VolumeSource: corev1.VolumeSource{Projected: projected}}},
				Containers: []corev1.Container{{
					Name: name, Image: cri.Registry + "kubectl:v1", Command: []string{"sh", "-c", script},
					VolumeMounts: []corev1.VolumeMount{{Name: "pki", MountPath: "/pod"}},
				}},
			},
		}, metav1.CreateOptions{})
		return err // there is no service account at first
	})
	return pod
}

func (p *podCerts) testPods(t *testing.T) {
	p.pod(t, "server", tlsServer, corev1.PodCertificateProjection{KeyType: "ED25519", MaxExpirationSeconds: ptr.To[int32](3600)})
	p.pod(t, "client", tlsClient, corev1.PodCertificateProjection{KeyType: "ECDSAP256"})
	var log string
	eventually(t, "a pod trusts another, and the other way round", func(context.Context) error {
		out, err := kubectl(t, p.controlPlane, "logs", "client")
		if log = out.stdout; err != nil || !strings.Contains(log, "Verify return code: 0 (ok)") || strings.LastIndex(log, "-----END CERTIFICATE-----") < max(0, strings.LastIndex(log, "-----BEGIN CERTIFICATE-----")) {
			return fmt.Errorf("the log is %q, %v %s", log, err, out.stderr)
		}
		return nil
	})
	leaf := lastCertificate(t, log)
	if got := fmt.Sprint(leaf.URIs); got != "[spiffe://lab.example/ns/default/sa/default]" {
		t.Errorf("the certificate says %s", got)
	}
	if got := leaf.NotAfter.Sub(leaf.NotBefore); leaf.Subject.String() != "" || got > 24*time.Hour || got < 23*time.Hour {
		t.Errorf("subject %q, life %s", leaf.Subject, got)
	}
	for _, r := range p.requests(t) {
		if len(r.OwnerReferences) != 1 || r.Spec.PodName == "" {
			t.Errorf("the answer has taken something from request %s: %+v", r.Name, r)
		}
		condition := r.Status.Conditions[0]
		if condition.Type != certificatesv1.PodCertificateRequestConditionTypeIssued || r.Status.BeginRefreshAt.Sub(r.Status.NotBefore.Time) != r.Status.NotAfter.Sub(r.Status.NotBefore.Time)*2/3 {
			t.Errorf("request %s: %+v", r.Name, r.Status)
		}
	}
}

// lastCertificate is the one that a pod has printed last.
func lastCertificate(t *testing.T, log string) *x509.Certificate {
	t.Helper()
	begin, end := strings.LastIndex(log, "-----BEGIN CERTIFICATE-----"), strings.LastIndex(log, "-----END CERTIFICATE-----")
	if begin < 0 || end < begin {
		t.Fatalf("no certificate in %q", log)
	}
	all, err := trust.ParseCertificates([]byte(log[begin:end] + "-----END CERTIFICATE-----\n"))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// requests are all of them. v1beta1 shows what v1 does, and is served by all
// versions.
func (p *podCerts) requests(t *testing.T) []certificatesv1beta1.PodCertificateRequest {
	t.Helper()
	list, err := p.api.CertificatesV1beta1().PodCertificateRequests("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func (p *podCerts) testKubeletAgain(t *testing.T) {
	before := len(p.requests(t))
	if err := p.worker.kubelet.Kill(); err != nil {
		t.Fatal(err)
	}
	p.source.replace(t, "pods, the second")
	p.worker.startKubelet(t)
	eventually(t, "the kubelet has asked again", func(context.Context) error {
		all := p.requests(t)
		if len(all) < before+2 || slices.ContainsFunc(all, func(r certificatesv1beta1.PodCertificateRequest) bool { return len(r.Status.Conditions) == 0 }) {
			return fmt.Errorf("%d requests, before %d", len(all), before)
		}
		return nil
	})
	eventually(t, "the pod has the new certificate", func(context.Context) error {
		out, err := kubectl(t, p.controlPlane, "logs", "client", "--tail=40")
		if err != nil {
			return err
		}
		if issuer := lastCertificate(t, out.stdout).Issuer.CommonName; issuer != "pods, the second" {
			return fmt.Errorf("it is of %q", issuer)
		}
		return nil
	})
}

// request makes a request for a pod as kubelets of 1.35 do, with a change, and
// writes it as the administrator, whom NodeRestriction does not hold up.
func (p *podCerts) request(t *testing.T, name, pod string, key crypto.Signer, change func(*certificatesv1beta1.PodCertificateRequestSpec)) error {
	t.Helper()
	o, err := p.api.CoreV1().Pods("default").Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account, err := p.api.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := p.api.CoreV1().Nodes().Get(t.Context(), "w1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := certificatesv1beta1.PodCertificateRequestSpec{
		SignerName: podcert.DefaultSignerName, PodName: pod, PodUID: o.UID, NodeName: "w1", NodeUID: node.UID,
		ServiceAccountName: "default", ServiceAccountUID: account.UID,
	}
	if change != nil {
		change(&spec)
	}
	//nolint:staticcheck // what kubelets of 1.35 write
	if spec.PKIXPublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	spec.ProofOfPossession = prove(t, key, string(spec.PodUID)) //nolint:staticcheck // as above
	_, err = p.api.CertificatesV1beta1().PodCertificateRequests("default").Create(t.Context(), &certificatesv1beta1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}, metav1.CreateOptions{})
	return err
}

func prove(t *testing.T, key crypto.Signer, uid string) []byte {
	t.Helper()
	message, options := []byte(uid), crypto.SignerOpts(crypto.Hash(0)) // Ed25519
	switch key.Public().(type) {
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		message, options = sum[:], &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthAuto}
	default:
		if issue.AlgorithmOf(key.Public()) != issue.Ed25519 {
			sum := sha256.Sum256(message)
			message, options = sum[:], crypto.SHA256
		}
	}
	proof, err := key.Sign(rand.Reader, message, options)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func podKey(t *testing.T, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// answered waits for the answer to a request, and returns its condition.
func (p *podCerts) answered(t *testing.T, name string) metav1.Condition {
	t.Helper()
	var condition metav1.Condition
	eventually(t, "request "+name+" is answered", func(ctx context.Context) error {
		r, err := p.api.CertificatesV1beta1().PodCertificateRequests("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(r.Status.Conditions) != 1 {
			return fmt.Errorf("%+v", r.Status)
		}
		condition = r.Status.Conditions[0]
		return nil
	})
	return condition
}

type specChange = func(*certificatesv1beta1.PodCertificateRequestSpec)

func (p *podCerts) testDenials(t *testing.T) {
	p.pod(t, "annotated", "sleep 1000", corev1.PodCertificateProjection{KeyType: "ECDSAP256", UserAnnotations: map[string]string{"example.org/role": "king"}})
	p.bare(t)
	for name, c := range map[string]struct {
		pod    string
		key    issue.Algorithm
		change specChange
		want   string
	}{
		"good-ecdsa":   {pod: "client", key: issue.ECDSAP256, want: podcert.Issued},
		"good-ed25519": {pod: "client", key: issue.Ed25519, want: podcert.Issued},
		"good-rsa":     {pod: "client", key: issue.RSA4096, want: podcert.Issued},
		"key-type":     {pod: "client", key: issue.RSA3072, want: "UnsupportedKeyType"},
		"annotations": {pod: "client", key: issue.ECDSAP256, want: "InvalidUnverifiedUserAnnotations", change: func(s *certificatesv1beta1.PodCertificateRequestSpec) {
			s.UnverifiedUserAnnotations = map[string]string{"example.org/role": "king"}
		}},
		"other-pod":     {pod: "client", key: issue.ECDSAP256, want: podcert.PodGone, change: func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.PodUID = "other" }},
		"no-pod":        {pod: "client", key: issue.ECDSAP256, want: podcert.PodGone, change: func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.PodName = "nobody" }},
		"other-node":    {pod: "client", key: issue.ECDSAP256, want: podcert.PodNotOnNode, change: func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.NodeName = "w9" }},
		"other-account": {pod: "client", key: issue.ECDSAP256, want: podcert.OtherServiceAccount, change: func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.ServiceAccountName = "admin" }},
		"not-mounted":   {pod: "bare", key: issue.ECDSAP256, want: podcert.SignerNotMounted},
	} {
		if err := p.request(t, name, c.pod, podKey(t, c.key), c.change); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := "Denied"
		if c.want == podcert.Issued {
			want = "Issued"
		}
		if got := p.answered(t, name); got.Type != want || got.Reason != c.want {
			t.Errorf("%s: %s, %s: %s; want %s", name, got.Type, got.Reason, got.Message, c.want)
		}
	}
	eventually(t, "the author of a pod learns why it gets no certificate", func(ctx context.Context) error {
		return says(t, p.controlPlane, "InvalidUnverifiedUserAnnotations", "get", "events", "-o=jsonpath={range .items[*]}{.reason} {.message}{end}")
	})
}

// bare makes a pod that mounts nothing.
func (p *podCerts) bare(t *testing.T) {
	t.Helper()
	_, err := p.api.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "bare"},
		Spec:       corev1.PodSpec{HostNetwork: true, NodeName: "w1", Containers: []corev1.Container{{Name: "bare", Image: "registry.k8s.io/pause:3.10"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *podCerts) testUndecided(t *testing.T) {
	for name, change := range map[string]specChange{
		"account-anew": func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.ServiceAccountUID = "former" },
		"node-anew":    func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.NodeUID = "former" },
	} {
		if err := p.request(t, name, "client", podKey(t, issue.ECDSAP256), change); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.request(t, "after", "client", podKey(t, issue.ECDSAP256), nil); err != nil {
		t.Fatal(err)
	}
	if got := p.answered(t, "after"); got.Reason != podcert.Issued {
		t.Errorf("%+v", got)
	}
	for _, r := range p.requests(t) {
		if (r.Name == "account-anew" || r.Name == "node-anew") && len(r.Status.Conditions) > 0 {
			t.Errorf("request %s: %+v", r.Name, r.Status)
		}
	}
}

func (p *podCerts) testRefusals(t *testing.T) {
	err := p.request(t, "rsa-2048", "client", podKey(t, issue.RSA2048), nil)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "3072 or 4096") {
		t.Errorf("RSA-2048: %v", err)
	}
	err = p.request(t, "short", "client", podKey(t, issue.ECDSAP256), func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.MaxExpirationSeconds = ptr.To[int32](3599) })
	if !apierrors.IsInvalid(err) {
		t.Errorf("a life below an hour: %v", err)
	}
}

func (p *podCerts) testNoRight(t *testing.T) {
	policy := podcert.DefaultPolicy("lab.example")
	policy.SignerName, policy.AllowUnmounted = "other.example/pod", true
	if err := p.request(t, "other-signer", "client", podKey(t, issue.ECDSAP256), func(s *certificatesv1beta1.PodCertificateRequestSpec) { s.SignerName = policy.SignerName }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan string, 1)
	loop := &controller.PodCertificates{Client: kubernetes.NewForConfigOrDie(p.self), Source: p.source, Policy: policy, Log: slog.New(slog.NewTextHandler(lineWriter(refused), nil))}
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	select {
	case <-refused:
	case <-time.After(readyWait):
		t.Error("the API server has not refused the answer")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r, err := p.api.CertificatesV1beta1().PodCertificateRequests("default").Get(t.Context(), "other-signer", metav1.GetOptions{})
	if err != nil || len(r.Status.Conditions) > 0 {
		t.Errorf("%+v, %v", r.Status, err)
	}
}

// lineWriter offers each line of a log that tells of the missing right.
type lineWriter chan string

func (w lineWriter) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "is not permitted to") {
		offer(w, string(line))
	}
	return len(line), nil
}

func (p *podCerts) bundle(t *testing.T, name string) *certificatesv1beta1.ClusterTrustBundle {
	t.Helper()
	b, err := p.api.CertificatesV1beta1().ClusterTrustBundles().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *podCerts) testBundles(t *testing.T) {
	const name = "kubepki.dev:pod:ca"
	anchor := string(trust.EncodeCertificates(p.source.current.Certificate))
	eventually(t, "the bundle follows the authority", func(context.Context) error {
		if b := p.bundle(t, name); b.Spec.TrustBundle != anchor || b.Spec.SignerName != podcert.DefaultSignerName {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
	b := p.bundle(t, name)
	b.Spec.TrustBundle = string(read(t, p.pki("ca.crt")))
	if _, err := p.api.CertificatesV1beta1().ClusterTrustBundles().Update(t.Context(), b, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what another has changed is set right", func(context.Context) error {
		if got := p.bundle(t, name).Spec.TrustBundle; got != anchor {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	if err := p.publish(t, "kubepki.dev/other"); err == nil || !strings.Contains(err.Error(), "not permitted to attest") {
		t.Errorf("a bundle of another signer: %v", err)
	}
}

// testV1beta1 has the loops speak as they do with Kubernetes 1.35 and 1.36.
func (p *podCerts) testV1beta1(t *testing.T) {
	p.stop()
	p.source.replace(t, "pods, the third")
	if err := p.request(t, "waits", "client", podKey(t, issue.ECDSAP256), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.request(t, "waits-for-no", "client", podKey(t, issue.RSA3072), nil); err != nil {
		t.Fatal(err)
	}
	p.startLoops(t, "v1beta1")
	defer p.stop()
	if got := p.answered(t, "waits"); got.Reason != podcert.Issued {
		t.Errorf("%+v", got)
	}
	if got := p.answered(t, "waits-for-no"); got.Reason != podcert.UnsupportedKeyType {
		t.Errorf("%+v", got)
	}
	want := string(trust.EncodeCertificates(p.source.current.Certificate))
	eventually(t, "the bundle follows the authority", func(context.Context) error {
		if got := p.bundle(t, "kubepki.dev:pod:ca").Spec.TrustBundle; got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// publish writes a bundle as the loops' service account.
func (p *podCerts) publish(t *testing.T, signerName string) error {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(p.self)
	_, err := client.CertificatesV1beta1().ClusterTrustBundles().Create(t.Context(), &certificatesv1beta1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(signerName, "/", ":") + ":ca"},
		Spec:       certificatesv1beta1.ClusterTrustBundleSpec{SignerName: signerName, TrustBundle: string(read(t, p.pki("ca.crt")))},
	}, metav1.CreateOptions{})
	return err
}
