//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/lab"
)

// shown is an agent that shows the files of cp1 and the objects of the real API server,
// with the rights of deploy/agent-cluster-rbac.yaml.
type shown struct {
	*controlPlane
	t      *testing.T
	api    *kubernetes.Clientset
	ca     issue.Authority
	etcd   *lab.Process
	conf   string // the agent's
	cmd    *exec.Cmd
	errors *bytes.Buffer
	url    string
}

// keyMark is in every line of what stands for private keys, so that no part of one is
// overlooked.
const keyMark = "KuBePkI/lab/key/"

func TestTheAgentShowsTheRealCluster(t *testing.T) {
	s := &shown{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256"), shape: "separate"}, t: t, ca: longAuthority(t, "issuer")}
	node := addNode(t, newNetwork(t), "cp1", s.path("cp1", ""), "10.99.0.11/24")
	s.nodes = append(s.nodes, node)
	s.etcd, s.apiserver = start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver")
	ready(t, s.etcd, s.apiserver)
	s.manager = start(t, node, "kube-controller-manager")
	ready(t, s.manager)
	s.admin = s.controlPlane.conf(t, "super-admin")
	s.admin.WarningHandler = rest.NoWarnings{} // what stands for keys is none
	s.api = s.client(t)
	s.furnish()
	s.start()
	s.awaits("what it may not list", `x509_source_up{source_kind="kube-secret",source_name="secrets kubernetes.io/tls"} 0`,
		`x509_source_errors_total{reason="http_403",source_kind="kube-secret",source_name="secrets kubernetes.io/tls"} `,
		`configmap_namespace="kube-system",configmap_name="kube-root-ca.crt",configmap_key="ca.crt"`, `configmap_name="extension-apiserver-authentication",configmap_key="requestheader-client-ca-file"`,
		`cabundle_resource_kind="APIService",cabundle_resource_name="v1.shop.example.org"`, `cabundle_resource_kind="CustomResourceDefinition",cabundle_resource_name="tills.shop.example.org"`,
		`cabundle_resource_kind="ValidatingWebhookConfiguration",cabundle_resource_name="policy",cabundle_entry="a.shop.example.org"`,
		`filepath="/etc/kubernetes/pki/apiserver.crt"`, `kubepki_link_ok{callee="cp1/kube-apiserver",caller="cp1/kube-scheduler",link="6",side="client"} 1`)
	s.stop()
	if n := strings.Count(s.errors.String(), "it may not list and watch secrets"); n != 1 {
		t.Errorf("what it may not is said %d times\n%s", n, s.errors)
	}
	s.mayListSecrets()
	s.start()
	defer s.stop()
	t.Run("Secrets that are made, changed and removed", s.secrets)
	t.Run("the API server is killed, and comes back", s.restart)
	t.Run("no key is in memory", s.memory)
	t.Run("it was never large", s.neverLarge)
	t.Run("Events", s.events)
}

// longAuthority is one that outlives what the test signs.
func longAuthority(t *testing.T, name string) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

// furnish makes objects of each kind that holds certificates.
func (s *shown) furnish() {
	t, ctx := s.t, s.t.Context()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate.Raw})
	bundle := base64Text(ca)
	objects := strings.ReplaceAll(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: kubepki-agent, namespace: kube-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: policy}
webhooks:
- name: a.shop.example.org
  clientConfig: {url: "https://hook.example.org/", caBundle: CA}
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.shop.example.org}
spec: {group: shop.example.org, version: v1, groupPriorityMinimum: 100, versionPriority: 100, service: {namespace: shop, name: api}, caBundle: CA}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tills.shop.example.org}
spec:
  group: shop.example.org
  names: {kind: Till, plural: tills}
  scope: Namespaced
  versions: [{name: v2, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://convert.example.org/", caBundle: CA}}}
`, "CA", bundle)
	admin := "--kubeconfig=" + s.path("cp1", "etc/kubernetes/super-admin.conf")
	run(t, "kubectl", admin, "apply", "-f", write(t, filepath.Join(t.TempDir(), "objects.yaml"), objects))
	run(t, "kubectl", admin, "apply", "-f", filepath.Join("..", "deploy", "agent-cluster-rbac.yaml"))
	r, err := s.api.CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, "kubepki-agent", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	s.must(err)
	config, err := clientcmd.LoadFromFile(s.path("cp1", "etc/kubernetes/super-admin.conf"))
	s.must(err)
	config.AuthInfos["agent"] = &clientcmdapi.AuthInfo{Token: r.Status.Token}
	config.Contexts[config.CurrentContext].AuthInfo = "agent"
	s.conf = filepath.Join(t.TempDir(), "agent.conf")
	s.must(clientcmd.WriteToFile(*config, s.conf))
}

func (s *shown) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// mayListSecrets gives the agent the right that is not given with the others.
func (s *shown) mayListSecrets() {
	_, err := s.api.RbacV1().ClusterRoleBindings().Create(s.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-secrets"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "kubepki-agent:secrets"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "kubepki-agent", Namespace: "kube-system"}},
	}, metav1.CreateOptions{})
	s.must(err)
}

// listening is the address in the agent's log.
var listening = regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`)

func (s *shown) start() {
	t := s.t
	s.cmd = exec.Command(filepath.Join(programs, "kubepki"), "agent", "--watch", "--root=cp1="+s.path("cp1", ""), "--listen=127.0.0.1:0", "--node-name=cp1", "--interval=2s",
		"--cluster-kubeconfig="+s.conf, "--cluster-certificates", "--events")
	log := filepath.Join(t.TempDir(), "agent.log")
	f, err := os.Create(log)
	s.must(err)
	defer f.Close()
	s.cmd.Stderr = f
	s.must(s.cmd.Start())
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // it may have ended
	eventually(t, "the agent listens", func(context.Context) error {
		s.errors = bytes.NewBuffer(read(t, log))
		found := listening.FindStringSubmatch(s.errors.String())
		if found == nil {
			return errors.New(s.errors.String())
		}
		s.url = "http://" + found[1]
		return nil
	})
	eventually(t, "the agent is ready", func(context.Context) error {
		_, err := s.get("/readyz")
		return err
	})
	t.Cleanup(func() { s.errors = bytes.NewBuffer(read(t, log)) })
}

// stop ends the agent, and keeps what it said.
func (s *shown) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	begun := time.Now()
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait() // what it says counts
	if took := time.Since(begun); took > 2*time.Second {
		s.t.Errorf("it took %s to stop", took)
	}
	s.errors = bytes.NewBuffer(read(s.t, s.cmd.Stderr.(*os.File).Name()))
}

func (s *shown) get(path string) (string, error) {
	response, err := http.Get(s.url + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	return string(body), err
}

// awaits waits until all texts are among the metrics, or, with - before them, none is.
// It returns how long that took.
func (s *shown) awaits(what string, texts ...string) time.Duration {
	s.t.Helper()
	begun := time.Now()
	eventually(s.t, what, func(context.Context) error {
		metrics, err := s.get("/metrics")
		if err != nil {
			return err
		}
		for _, text := range texts {
			gone, without := strings.CutPrefix(text, "-")
			if strings.Contains(metrics, gone) == without {
				return fmt.Errorf("%s\n%s", text, s.errors)
			}
		}
		return nil
	})
	return time.Since(begun)
}

// secret makes a Secret, or changes one that is there.
func (s *shown) secret(name string, left time.Duration) string {
	s.t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	s.must(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: name}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: now.AddDate(0, 0, -90), NotAfter: now.Add(left)}, key.Public(), s.ca)
	s.must(err)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
			"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}),
			"tls.key": []byte("-----BEGIN PRIVATE KEY-----\n" + strings.Repeat(keyMark+name+"/", 60) + "\n-----END PRIVATE KEY-----\n"),
		},
	}
	secrets := s.api.CoreV1().Secrets("shop")
	if _, err = secrets.Update(s.t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		_, err = secrets.Create(s.t.Context(), secret, metav1.CreateOptions{})
	}
	s.must(err)
	return fmt.Sprintf(`secret_namespace="shop",secret_name="%s",secret_key="tls.crt",serial_number="%s"`, name, c.SerialNumber)
}

func (s *shown) secrets(t *testing.T) {
	many := 250 // three pages, when the agent lists them again
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		many = 10_000
	}
	for i := range many {
		s.secret(fmt.Sprintf("many-%d", i), 60*24*time.Hour)
	}
	first := s.secret("front", 60*24*time.Hour)
	t.Logf("shown after %s", s.awaits("a Secret that was made", first))
	second := s.secret("front", 60*24*time.Hour)
	t.Logf("shown after %s", s.awaits("a Secret that was changed", second, "-"+first))
	s.must(s.api.CoreV1().Secrets("shop").Delete(t.Context(), "front", metav1.DeleteOptions{}))
	t.Logf("gone after %s", s.awaits("a Secret that was removed", "-"+second))
}

func (s *shown) restart(t *testing.T) {
	s.must(s.apiserver.Kill())
	s.awaits("the API server is gone", `x509_source_up{source_kind="kube-secret",source_name="secrets kubernetes.io/tls"} 0`, `secret_name="many-249"`)
	s.apiserver = start(t, s.nodes[0], "kube-apiserver")
	ready(t, s.apiserver)
	again := s.secret("again", 60*24*time.Hour)
	t.Logf("shown after %s", s.awaits("what was made afterwards", again, `x509_source_up{source_kind="kube-secret",source_name="secrets kubernetes.io/tls"} 1`))
}

// memory reads what the agent's process can write to. What was received is cleared as
// soon as more is waited for.
func (s *shown) memory(t *testing.T) {
	pid := s.cmd.Process.Pid
	eventually(t, "no key is in memory", func(context.Context) error {
		memory := writable(t, pid)
		if !bytes.Contains(memory, []byte("many-249")) {
			t.Fatal("that is not the memory of the agent")
		}
		for _, mark := range []string{keyMark, base64Text([]byte(keyMark))[:20], base64Text([]byte("/" + keyMark))[4:20], base64Text([]byte("//" + keyMark))[4:20]} {
			if i := bytes.Index(memory, []byte(mark)); i >= 0 {
				return fmt.Errorf("%.100q", memory[i:])
			}
		}
		return nil
	})
}

// neverLarge reads the most that was ever resident, by the kernel's own count: with ten
// thousand Secrets in the long tests, 40 MB.
func (s *shown) neverLarge(t *testing.T) {
	status := string(read(t, fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)))
	_, rest, _ := strings.Cut(status, "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB were resident at most", kib)
	if kib<<10 > 40_000_000 {
		t.Errorf("%d KiB were resident, want 40 MB at most", kib)
	}
}

// writable is the memory of a process that it can write to.
func writable(t *testing.T, pid int) []byte {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []byte
	for line := range strings.SplitSeq(string(read(t, fmt.Sprintf("/proc/%d/maps", pid))), "\n") {
		var begin, end int64
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &begin, &end, &rights); n < 3 || !strings.HasPrefix(rights, "rw") {
			continue
		}
		part := make([]byte, end-begin)
		n, _ := f.ReadAt(part, begin) // a part may be gone
		all = append(all, part[:n]...)
	}
	return all
}

func (s *shown) events(t *testing.T) {
	s.secret("soon", 24*time.Hour)
	s.must(os.Rename(s.path("cp1", "etc/kubernetes/pki/etcd/server.crt"), s.path("cp1", "etc/kubernetes/pki/etcd/away")))
	want := map[string]bool{"CertificateExpiring Secret shop/soon": false, "LinkBroken Node /cp1": false}
	eventually(t, "Events", func(ctx context.Context) error {
		list, err := s.api.EventsV1().Events("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.ReportingController != "kubepki.dev/agent" {
				continue
			}
			what := fmt.Sprintf("%s %s %s/%s", e.Reason, e.Regarding.Kind, e.Regarding.Namespace, e.Regarding.Name)
			if _, wanted := want[what]; !wanted {
				t.Fatalf("nobody asked for %s: %s", what, e.Note)
			}
			want[what] = true
		}
		for what, there := range want {
			if !there {
				return errors.New(what)
			}
		}
		return nil
	})
	admin := "--kubeconfig=" + s.path("cp1", "etc/kubernetes/super-admin.conf")
	if out := run(t, "kubectl", admin, "events", "-n", "shop", "--for", "secret/soon").stdout; !strings.Contains(out, "certificates that end soon: data[tls.crt]") {
		t.Errorf("kubectl events --for secret/soon shows\n%s", out)
	}
	if out := run(t, "kubectl", admin, "describe", "secret", "-n", "shop", "soon").stdout; strings.Contains(out, keyMark) {
		t.Errorf("kubectl describe shows a key\n%s", out)
	}
}

func base64Text(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
