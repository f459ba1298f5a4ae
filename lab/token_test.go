//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/trust"
)

// tokens is a running cluster to which nobody has joined yet.
type tokens struct {
	*controlPlane
	api  *kubernetes.Clientset
	conf string // the administrator's kubeconfig
	dir  string // for files
}

const (
	apiEndpoint = "10.99.0.11:6443"
	ownToken    = "kbpki1.a1b2c3d4e5f6g7h8"
)

func TestBootstrapTokens(t *testing.T) {
	c := startCluster(t, initCluster(t, 1, "--key-algorithm=ECDSA-P256"), "separate", 1)
	k := &tokens{controlPlane: c, api: c.client(t), conf: c.path("cp1", "etc/kubernetes/super-admin.conf"), dir: t.TempDir()}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the manifests are the objects that kubeadm makes", k.testManifests},
		{"a token is the Secret that kubeadm makes", k.testSecrets},
		{"kubeadm does otherwise where the documentation says so", k.testOtherwise},
		{"the join command is kubeadm's", k.testJoinCommand},
		{"each lists what the other made", k.testLists},
		{"the controller manager signs cluster-info as kubepki does", k.testSignature},
		{"kubeadm join believes the join command", k.testKubeadmJoin},
		{"a pinned authority does not vouch for another", k.testPins},
		{"a kubelet's client joins with the kubeconfig", k.testKubelet},
		{"an expired token is refused, and shown as such", k.testExpired},
	} {
		if !t.Run(test.name, test.run) && test.name == "the manifests are the objects that kubeadm makes" {
			return // nothing else can work
		}
	}
}

// kubepki runs a sub-command of token as the administrator.
func (k *tokens) kubepki(t *testing.T, args ...string) output {
	t.Helper()
	return run(t, "kubepki", append([]string{"token", args[0], "--kubeconfig=" + k.conf}, args[1:]...)...)
}

// kubeadm runs the real one as the administrator.
func (k *tokens) kubeadm(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "kubeadm", append([]string{"token", "--kubeconfig=" + k.conf}, args...)...).stdout
}

// joinObjects are what both make, without what the API server adds.
type joinObjects struct {
	Secret         corev1.Secret
	ClusterInfo    corev1.ConfigMap
	Role           rbacv1.Role
	RoleBinding    rbacv1.RoleBinding
	ClusterRole    rbacv1.ClusterRole
	ClusterBinding []rbacv1.ClusterRoleBinding
}

var joinBindings = []string{"kubeadm:get-nodes", "kubeadm:kubelet-bootstrap", "kubeadm:node-autoapprove-bootstrap", "kubeadm:node-autoapprove-certificate-rotation"}

const (
	clusterInfoName = "cluster-info"
	clusterInfoRole = "kubeadm:bootstrap-signer-clusterinfo"
)

func bare(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations}
}

// take reads the objects and deletes them.
func (k *tokens) take(t *testing.T, id string) joinObjects {
	t.Helper()
	ctx, get, remove := t.Context(), metav1.GetOptions{}, metav1.DeleteOptions{}
	var o joinObjects
	keep := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets, maps := k.api.CoreV1().Secrets("kube-system"), k.api.CoreV1().ConfigMaps("kube-public")
	secret, err := secrets.Get(ctx, "bootstrap-token-"+id, get)
	keep(err)
	o.Secret = corev1.Secret{ObjectMeta: bare(secret.ObjectMeta), Type: secret.Type, Data: secret.Data}
	info, err := maps.Get(ctx, clusterInfoName, get)
	keep(err)
	o.ClusterInfo = corev1.ConfigMap{ObjectMeta: bare(info.ObjectMeta), Data: map[string]string{"kubeconfig": info.Data["kubeconfig"]}}
	role, err := k.api.RbacV1().Roles("kube-public").Get(ctx, clusterInfoRole, get)
	keep(err)
	o.Role = rbacv1.Role{ObjectMeta: bare(role.ObjectMeta), Rules: role.Rules}
	binding, err := k.api.RbacV1().RoleBindings("kube-public").Get(ctx, clusterInfoRole, get)
	keep(err)
	o.RoleBinding = rbacv1.RoleBinding{ObjectMeta: bare(binding.ObjectMeta), RoleRef: binding.RoleRef, Subjects: binding.Subjects}
	nodes, err := k.api.RbacV1().ClusterRoles().Get(ctx, "kubeadm:get-nodes", get)
	keep(err)
	o.ClusterRole = rbacv1.ClusterRole{ObjectMeta: bare(nodes.ObjectMeta), Rules: nodes.Rules}
	for _, name := range joinBindings {
		b, err := k.api.RbacV1().ClusterRoleBindings().Get(ctx, name, get)
		keep(err)
		o.ClusterBinding = append(o.ClusterBinding, rbacv1.ClusterRoleBinding{ObjectMeta: bare(b.ObjectMeta), RoleRef: b.RoleRef, Subjects: b.Subjects})
		keep(k.api.RbacV1().ClusterRoleBindings().Delete(ctx, name, remove))
	}
	keep(secrets.Delete(ctx, secret.Name, remove))
	keep(maps.Delete(ctx, clusterInfoName, remove))
	keep(k.api.RbacV1().Roles("kube-public").Delete(ctx, clusterInfoRole, remove))
	keep(k.api.RbacV1().RoleBindings("kube-public").Delete(ctx, clusterInfoRole, remove))
	keep(k.api.RbacV1().ClusterRoles().Delete(ctx, "kubeadm:get-nodes", remove))
	return o
}

// testManifests makes everything without the cluster, as kubeadm makes it, and
// leaves it there for the tests that follow.
func (k *tokens) testManifests(t *testing.T) {
	config := strings.Replace(plainConfig, "nodeRegistration:", "bootstrapTokens: [{token: "+ownToken+", ttl: 0s, description: rack 7}]\nnodeRegistration:", 1)
	phase := func() {
		t.Helper()
		kubeadm(t, k.path("cp1", ""), config, "init", "phase", "bootstrap-token", "--kubeconfig=/etc/kubernetes/super-admin.conf")
	}
	phase()
	want := k.take(t, ownToken[:6])

	// Not as kubeadm's phase, which adds the name of the control plane and
	// takes the server from super-admin.conf.
	token := write(t, filepath.Join(k.dir, "token"), ownToken+"\n")
	manifests := filepath.Join(k.dir, "bootstrap.yaml")
	out := run(t, "kubepki", "token", "create", "--root="+k.path("cp1", ""), "--manifests="+manifests, "--token-file="+token, "--ttl=0", "--description=rack 7")
	if out.stdout != ownToken+"\n" {
		t.Errorf("standard output is %q", out.stdout)
	}
	apply := func() {
		t.Helper()
		if out, err := kubectl(t, k.controlPlane, "apply", "--server-side", "-f", manifests); err != nil {
			t.Fatalf("%v\n%s", err, out.stderr)
		}
	}
	apply()
	if d := cmp.Diff(want, k.take(t, ownToken[:6])); d != "" {
		t.Errorf("(-kubeadm +kubepki):\n%s", d)
	}
	// Over what kubeadm made, they conflict with nothing and change nothing.
	phase()
	apply()
	if d := cmp.Diff(want, k.take(t, ownToken[:6])); d != "" {
		t.Errorf("(-kubeadm +kubepki over kubeadm):\n%s", d)
	}
	apply()
}

// testSecrets compares the Secrets of one token, made by each.
func (k *tokens) testSecrets(t *testing.T) {
	secrets := k.api.CoreV1().Secrets("kube-system")
	const text, name = "second.0123456789abcdef", "bootstrap-token-second"
	made := func(by string, flags []string) *corev1.Secret {
		t.Helper()
		run(t, by, append([]string{"token", "create", text, "--kubeconfig=" + k.conf}, flags...)...)
		s, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// Its name alone would be refused a second time.
		if out, err := try(t, "kubepki", "token", "create", text, "--kubeconfig="+k.conf); err == nil || !strings.Contains(out.stderr, `token "second": there is one already`) || strings.Contains(out.stderr, text[7:]) {
			t.Errorf("the token was made twice: %s", out.stderr)
		}
		if out := k.kubepki(t, "delete", text).stdout; out != "bootstrap token \"second\" deleted\n" {
			t.Errorf("delete says %q", out)
		}
		return &corev1.Secret{ObjectMeta: bare(s.ObjectMeta), Type: s.Type, Data: s.Data, StringData: s.StringData, Immutable: s.Immutable}
	}
	for label, flags := range map[string][]string{
		"plain":            nil,
		"for ever":         {"--ttl=0"},
		"two groups":       {"--ttl=0", "--groups=system:bootstrappers:b,system:bootstrappers:a", "--groups=system:bootstrappers:a:b-c"},
		"a description":    {"--ttl=0", "--description=räck 7, \"left\"\n"},
		"for one use":      {"--ttl=0", "--usages=authentication"},
		"usages in order":  {"--ttl=0", "--usages=authentication", "--usages=signing,authentication"},
		"a fraction of it": {"--ttl=90m30.5s"},
	} {
		want, got := made("kubeadm", flags), made("kubepki", flags)
		const at = "expiration"
		if w, g := want.Data[at], got.Data[at]; w != nil {
			first, err1 := time.Parse(time.RFC3339, string(w))
			second, err2 := time.Parse(time.RFC3339, string(g))
			if err1 != nil || err2 != nil || len(w) != len(g) || second.Sub(first) < 0 || second.Sub(first) > 20*time.Second {
				t.Errorf("%s: expiration %s, of kubeadm %s", label, g, w)
			}
			delete(want.Data, at)
			delete(got.Data, at)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-kubeadm +kubepki):\n%s", label, d)
		}
	}
}

// testOtherwise shows what docs/tokens.md says of kubeadm where kubepki does
// otherwise.
func (k *tokens) testOtherwise(t *testing.T) {
	id := k.kubeadm(t, "create", "--ttl=-1h")[:6]
	if s, err := k.api.CoreV1().Secrets("kube-system").Get(t.Context(), "bootstrap-token-"+id, metav1.GetOptions{}); err != nil || s.Data["expiration"] != nil {
		t.Errorf("a negative life: %s, %v", s.Data["expiration"], err)
	}
	k.kubepki(t, "delete", id)
	if out, err := try(t, "kubeadm", "token", "create", "--usages=signing", "--kubeconfig="+k.conf); err == nil || !strings.Contains(out.stderr, "token groups cannot be specified") {
		t.Errorf("signing alone: %v %s", err, out.stderr)
	}
	id = k.kubepki(t, "create", "--usages=signing").stdout[:6]
	id2 := k.kubeadm(t, "create", "--usages=", "--groups=")[:6]
	s, err := k.api.CoreV1().Secrets("kube-system").Get(t.Context(), "bootstrap-token-"+id2, metav1.GetOptions{})
	if err != nil || string(s.Data["auth-extra-groups"]) != bootstrap.NodeGroup || string(s.Data["usage-bootstrap-signing"]) != "true" {
		t.Errorf("neither usages nor groups: %v", err)
	}
	k.kubepki(t, "delete", id, id2)
}

func (k *tokens) testJoinCommand(t *testing.T) {
	// A rotation: two authorities in the administrator's kubeconfig.
	other, _ := selfSigned(t, "next")
	two := filepath.Join(k.dir, "two.conf")
	both := slices.Concat(read(t, k.pki("ca.crt")), trust.EncodeCertificates(other))
	config := run(t, "kubectl", "--kubeconfig="+k.conf, "config", "view", "--raw").stdout
	write(t, two, config)
	run(t, "kubectl", "--kubeconfig="+two, "config", "set-cluster", "kubernetes", "--embed-certs", "--certificate-authority="+write(t, filepath.Join(k.dir, "both.crt"), string(both)))
	key := strings.Repeat("0123456789abcdef", 4)
	for _, conf := range []string{k.conf, two} {
		for _, more := range [][]string{nil, {"--certificate-key=" + key}} {
			var answers []string
			for _, by := range []string{"kubeadm", "kubepki"} {
				flags := append([]string{"token", "create", "joinme.0123456789abcdef", "--print-join-command", "--kubeconfig=" + conf}, more...)
				answers = append(answers, strings.TrimSpace(run(t, by, flags...).stdout))
				k.kubepki(t, "delete", "joinme")
			}
			if answers[0] != answers[1] || !strings.HasPrefix(answers[1], "kubeadm join "+apiEndpoint+" --token joinme.") {
				t.Errorf("kubeadm: %q\nkubepki: %q", answers[0], answers[1])
			}
		}
	}
}

func (k *tokens) testLists(t *testing.T) {
	theirs := strings.TrimSpace(k.kubeadm(t, "create", "--ttl=2h", "--description=of kubeadm"))
	ours := strings.TrimSpace(k.kubepki(t, "create", "--ttl=2h", "--description=of kubepki", "--usages=signing").stdout)
	list := k.kubeadm(t, "list")
	for _, want := range []string{ours + `\s+(1h|119m)\s+\S+Z\s+signing\s+of kubepki\s+<none>`, theirs + `\s`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("kubeadm does not list %s:\n%s", want, list)
		}
	}
	list = k.kubepki(t, "list").stdout
	if want := theirs[:7] + `\*{16}\s+(1h|119m)\s+\S+Z\s+authentication,signing\s+of kubeadm\s+system:bootstrappers:kubeadm:default-node-token`; !regexp.MustCompile(want).MatchString(list) {
		t.Errorf("kubepki does not list %s:\n%s", want, list)
	}
	for _, secret := range []string{theirs[7:], ours[7:], ownToken[7:]} {
		if strings.Contains(list, secret) {
			t.Errorf("the list tells the secret of a token:\n%s", list)
		}
	}
	var document struct{ Items []struct{ Token string } }
	if err := json.Unmarshal([]byte(k.kubepki(t, "list", "--reveal", "-o", "json").stdout), &document); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{theirs, ours, ownToken} {
		if !slices.ContainsFunc(document.Items, func(i struct{ Token string }) bool { return i.Token == want }) {
			t.Errorf("token %s is not revealed", want[:6])
		}
	}
	k.kubepki(t, "delete", theirs, ours[:6])
}

// testSignature removes the signature that came with the manifests, and waits
// for the one of bootstrap-signer-controller.
func (k *tokens) testSignature(t *testing.T) {
	maps, key := k.api.CoreV1().ConfigMaps("kube-public"), bootstrap.SignatureKey(ownToken[:6])
	want := ""
	for line := range strings.Lines(string(read(t, filepath.Join(k.dir, "bootstrap.yaml")))) {
		if _, value, found := strings.Cut(line, key+": "); found {
			want = strings.TrimSpace(value)
		}
	}
	if want == "" {
		t.Fatal("the manifests hold no signature")
	}
	before, err := maps.Patch(t.Context(), clusterInfoName, types.MergePatchType, fmt.Appendf(nil, `{"data":{%q:null}}`, key), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the controller manager signs", func(ctx context.Context) error {
		after, err := maps.Get(ctx, clusterInfoName, metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case after.Data[key] == "" || after.ResourceVersion == before.ResourceVersion:
			return errNotSigned
		case after.Data[key] != want:
			t.Errorf("it signs %s, kubepki %s", after.Data[key], want)
		}
		return nil
	})
	if out := k.kubepki(t, "show", ownToken[:6]).stdout; !strings.Contains(out, "signature: valid") {
		t.Errorf("show says\n%s", out)
	}
}

func (k *tokens) pin(t *testing.T) string {
	t.Helper()
	return bootstrap.PinOf(certificatesIn(read(t, k.pki("ca.crt")))[0]).String()
}

// testKubeadmJoin has the real kubeadm prove the cluster and write the
// bootstrap kubeconfig, which kubepki's is compared with.
func (k *tokens) testKubeadmJoin(t *testing.T) {
	kubeadm(t, k.path("cp1", ""), plainConfig, "init", "phase", "upload-config", "all", "--kubeconfig=/etc/kubernetes/super-admin.conf")
	command := strings.Fields(k.kubepki(t, "create", "--print-join-command").stdout)
	root, token := t.TempDir(), command[4]
	// What a node has to have for a real join is not looked at: this is no node.
	args := append(command[1:], "--dry-run", "--ignore-preflight-errors=all", "--node-name=w9", "--rootfs="+root, "-v=5")
	out := run(t, command[0], args...)
	if want := "TLS certificate validates against pinned roots"; !strings.Contains(out.stdout+out.stderr, want) {
		t.Errorf("kubeadm does not say %q:\n%s", want, out.stderr)
	}
	made, err := filepath.Glob(filepath.Join(root, "etc/kubernetes/tmp/*/bootstrap-kubelet.conf"))
	if err != nil || len(made) != 1 {
		t.Fatalf("kubeadm made no bootstrap-kubelet.conf: %v, %v", made, err)
	}
	file := write(t, filepath.Join(k.dir, "w9-token"), token)
	ours := run(t, "kubepki", "kubeconfig", "bootstrap", "--root="+k.path("cp1", ""), "--token-file="+file).stdout
	if d := cmp.Diff(string(read(t, made[0])), ours); d != "" {
		t.Errorf("bootstrap-kubelet.conf (-kubeadm +kubepki):\n%s", d)
	}
	verify := []string{"token", "verify", "--server=" + apiEndpoint, "--token-file=" + file}
	if out := run(t, "kubepki", append(verify, "--discovery-token-ca-cert-hash="+command[6])...).stdout; !strings.Contains(out, "https://"+apiEndpoint+" is the cluster of the token") {
		t.Errorf("verify says %s", out)
	}
	stranger := bootstrap.PinOf(first(selfSigned(t, "kubernetes"))).String()
	if out, err := try(t, "kubepki", append(verify, "--discovery-token-ca-cert-hash="+stranger)...); err == nil || !strings.Contains(out.stderr, "none of its authorities is pinned") {
		t.Errorf("another pin: %s", out.stderr)
	}
	k.kubepki(t, "delete", token)
}

func first[A, B any](a A, _ B) A { return a }

// selfSigned makes an authority of somebody else.
func selfSigned(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// testPins poses as the cluster, as somebody can who knows the token: a node
// that joined with it, say. His cluster-info holds the true authority, which is
// pinned, and his own, by which he serves.
func (k *tokens) testPins(t *testing.T) {
	own, key := selfSigned(t, "kubernetes")
	token, err := bootstrap.ParseToken(ownToken)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{own.Raw}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // whoever refuses him
	server.StartTLS()
	defer server.Close()
	genuine := certificatesIn(read(t, k.pki("ca.crt")))[0]
	kubeconfig, err := bootstrap.ClusterInfoKubeconfig(server.URL, trust.EncodeCertificates(genuine, own))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := bootstrap.Sign(kubeconfig, token)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: clusterInfoName, Namespace: "kube-public"},
			Data: map[string]string{"kubeconfig": string(kubeconfig), bootstrap.SignatureKey(token.ID()): signature},
		})
	})
	endpoint := strings.TrimPrefix(server.URL, "https://")
	file := write(t, filepath.Join(k.dir, "own-token"), ownToken)
	out, err := try(t, "kubepki", "token", "verify", "--server="+endpoint, "--token-file="+file, "--discovery-token-ca-cert-hash="+k.pin(t))
	if err == nil || !strings.Contains(out.stderr, "unknown authority") {
		t.Errorf("kubepki believes him: %s%s", out.stdout, out.stderr)
	}
	// The difference that docs/tokens.md tells of, for as long as there is one.
	if !k.kubeadmBelieves(t, endpoint) {
		t.Error("kubeadm does not believe him: docs/tokens.md says it does")
	}
}

// kubeadmBelieves runs kubeadm join until it has judged the server.
func (k *tokens) kubeadmBelieves(t *testing.T, endpoint string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "kubeadm"), "join", endpoint, "--token="+ownToken, "--discovery-token-ca-cert-hash="+k.pin(t),
		"--dry-run", "--ignore-preflight-errors=all", "--node-name=w9", "--rootfs="+t.TempDir(), "-v=5")
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	believes := false
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		if strings.Contains(lines.Text(), "TLS certificate validates against pinned roots") {
			believes = true
			cancel()
		}
	}
	_ = cmd.Wait() // it was killed, or refused
	return believes
}

// testKubelet does what a kubelet does with a bootstrap kubeconfig.
func (k *tokens) testKubelet(t *testing.T) {
	file := write(t, filepath.Join(k.dir, "kubelet-token"), ownToken)
	conf := filepath.Join(k.dir, "bootstrap-kubelet.conf")
	run(t, "kubepki", "kubeconfig", "bootstrap", "--certificate-authority="+k.pki("ca.crt"), "--server=https://"+apiEndpoint, "--token-file="+file, "--file="+conf)
	if info, err := os.Stat(conf); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	isIdentity(t, "the token", restConfig(t, conf), identity{"system:bootstrap:kbpki1", []string{"system:authenticated", "system:bootstrappers", bootstrap.NodeGroup}})
	// Approved by kube-controller-manager, for the roles of the manifests say so.
	requests := clientset(t, conf).CertificatesV1().CertificateSigningRequests()
	request, keyPEM := nodeRequest(t, "w9")
	made, err := requests.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node has a certificate", func(ctx context.Context) error {
		got, err := requests.Get(ctx, made.Name, metav1.GetOptions{})
		if err == nil && len(got.Status.Certificate) == 0 {
			return errNotSigned
		}
		made = got
		return err
	})
	isIdentity(t, "the node", credential{made.Status.Certificate, keyPEM}.as(k.admin), identity{"system:node:w9", []string{"system:authenticated", "system:nodes"}})
}

// nodeRequest makes a node's key and its request for a client certificate.
func nodeRequest(t *testing.T, name string) (request, keyPEM []byte) {
	t.Helper()
	keyPEM, _ = newKey(t)
	block, _ := pem.Decode(keyPEM)
	key, err := privateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	subject := pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), keyPEM
}

// testExpired stops the controller manager, which would remove the token.
func (k *tokens) testExpired(t *testing.T) {
	if err := k.manager.Stop(); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(k.kubepki(t, "create", "--ttl=1s").stdout)
	file := write(t, filepath.Join(k.dir, "short"), text)
	conf := filepath.Join(k.dir, "short.conf")
	run(t, "kubepki", "kubeconfig", "bootstrap", "--root="+k.path("cp1", ""), "--token-file="+file, "--file="+conf)
	marked := regexp.MustCompile(text[:7] + `\*+\s+<expired>`)
	eventually(t, "the token expires", func(context.Context) error {
		if list := k.kubepki(t, "list").stdout; !marked.MatchString(list) {
			return fmt.Errorf("the list does not mark it:\n%s", list)
		}
		return nil
	})
	// Not shown before: the API server remembers for ten seconds whom it let in.
	if _, err := whoami(t, restConfig(t, conf)); !apierrors.IsUnauthorized(err) {
		t.Errorf("the API server lets it in: %v", err)
	}
	out, err := try(t, "kubepki", "token", "show", "--token-file="+file, "--kubeconfig="+k.conf, "--fail-on=warning", "-o=json")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out.stdout, `"id": "bootstrap-token-expired"`) || strings.Contains(out.stdout, text[7:]) {
		t.Errorf("show: %v\n%s%s", err, out.stdout, out.stderr)
	}
}
