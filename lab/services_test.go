//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/objects"
	"github.com/kubepki/kubepki/lab/internal/podclient"
	"github.com/kubepki/kubepki/lab/internal/proxyclient"
	"github.com/kubepki/kubepki/lab/internal/proxywatch"
	"github.com/kubepki/kubepki/lab/internal/webhook"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// services is a control plane with the objects of the lab, and three workers.
type services struct {
	*controlPlane
	api     *kubernetes.Clientset
	servers *objects.Servers
	workers []*worker
}

// auditPolicy has kube-apiserver note who asks for what.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  resources:
  - group: discovery.k8s.io
- level: None
`

// startServices starts everything. The network of services leaves out the
// addresses of the nodes, for kube-proxy drops what is sent to an address of it
// that belongs to no service.
func startServices(t *testing.T) *services {
	t.Helper()
	dir := t.TempDir()
	args := []string{"init", "--out=" + dir, "--manifests", "--kube-proxy", "--key-algorithm=ECDSA-P256", "--service-cidr=10.96.0.0/16",
		"--control-plane-endpoint=10.99.0.11:6443", "--control-plane=cp1=10.99.0.11"}
	for i := range objects.ProxyModes() {
		args = append(args, fmt.Sprintf("--worker=w%d=10.99.0.2%d", i+1, i+1))
	}
	run(t, "kubepki", args...)
	s := &services{controlPlane: &controlPlane{dir: dir, shape: "separate"}}
	var err error
	if s.servers, err = objects.Provision(t.Context(), s.path("", "servers"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := objects.WriteAdmission(s.path("cp1", ""), s.servers.Webhook); err != nil {
		t.Fatal(err)
	}
	network := newNetwork(t)
	s.startControlPlane(t, network)
	for i, mode := range objects.ProxyModes() {
		s.addWorker(t, network, fmt.Sprintf("w%d", i+1), netip.MustParseAddr(fmt.Sprintf("10.99.0.2%d", i+1)), mode)
	}
	return s
}

func (s *services) startControlPlane(t *testing.T, network *lab.Network) {
	t.Helper()
	node := addNode(t, network, "cp1", s.path("cp1", ""), "10.99.0.11/24")
	s.nodes = []*lab.Node{node}
	var flags []string
	for _, f := range objects.APIServerFlags() {
		flags = append(flags, f.Flag)
	}
	write(t, filepath.Join(node.Root, "etc/kubernetes/audit.yaml"), auditPolicy)
	flags = append(flags, "--audit-policy-file=/etc/kubernetes/audit.yaml", "--audit-log-path=/tmp/audit.log")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver", flags...))
	ready(t, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
	s.admin = s.conf(t, "super-admin")
	s.api = s.client(t)
}

// addWorker starts a worker with the files of kubepki init.
func (s *services) addWorker(t *testing.T, network *lab.Network, name string, address netip.Addr, mode string) {
	t.Helper()
	w := startWorker(t, network, s.path(name, ""), kubelet.Config{Name: name, Addresses: []netip.Addr{address}})
	s.workers = append(s.workers, w)
	label := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, objects.ProxyLabel, mode)
	eventually(t, "label node "+name, func(ctx context.Context) error {
		_, err := s.api.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, label, metav1.PatchOptions{})
		return err
	})
}

func (s *services) values() objects.Values {
	return objects.Values{Server: "https://10.99.0.11:6443", Servers: *s.servers}
}

func TestServices(t *testing.T) {
	if err := proxyclient.CanProgram(t.Context()); err != nil {
		t.Skip(err)
	}
	s := startServices(t)
	if err := objects.Apply(t.Context(), s.admin, s.values()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all pods run", s.available)
	t.Run("no container had to be started twice", s.testRestarts)
	t.Run("what is applied again does not change", s.testApplyAgain)
	t.Run("each kube-proxy shows its own kind of credential", s.testProxyIdentities)
	t.Run("each kube-proxy has programmed the first service", s.testFirstService)
	t.Run("each kube-proxy learns of a new service", s.testNewService)
	t.Run("aggregated calls carry their user", s.testExtension)
	t.Run("only the front proxy speaks for users at the extension API server", s.testExtensionStrangers)
	t.Run("the webhook judges what is labelled for it", s.testWebhook)
	t.Run("the webhook lets nobody in but kube-apiserver", s.testWebhookStrangers)
	t.Run("a pod uses the API through its own files", s.testPodClient)
	t.Run("a wrong caBundle is the failure that it should be", s.testWrongBundles)
	t.Run("the client of kube-proxy alone shows the same credentials", s.testProxyClients)
}

// available tells which workload still lacks pods.
func (s *services) available(ctx context.Context) error {
	deployments, err := s.api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range deployments.Items {
		if d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != 1 || d.Status.AvailableReplicas != 1 {
			return fmt.Errorf("deployment %s: %+v", d.Name, d.Status)
		}
	}
	sets, err := s.api.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range sets.Items {
		if d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedNumberScheduled != 1 || d.Status.NumberAvailable != 1 {
			return fmt.Errorf("daemon set %s: %+v", d.Name, d.Status)
		}
	}
	return nil
}

// dials are the ways into the network from each worker.
func (s *services) dials() map[string]proxywatch.Dial {
	dials := map[string]proxywatch.Dial{}
	for _, w := range s.workers {
		dials[w.name] = w.node.Dial
	}
	return dials
}

// on is the worker that the pod of a deployment is on.
func (s *services) on(t *testing.T, namespace, app string) *worker {
	t.Helper()
	pods, err := s.api.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of %s, %v; want one", len(pods.Items), app, err)
	}
	i := slices.IndexFunc(s.workers, func(w *worker) bool { return w.name == pods.Items[0].Spec.NodeName })
	return s.workers[i]
}

// get reads a URL from a node.
func get(ctx context.Context, w *worker, url string) ([]byte, error) {
	client, transport := w.node.Client()
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// testRestarts looks for programs that gave up.
func (s *services) testRestarts(t *testing.T) {
	pods, err := s.api.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 6 {
		t.Errorf("%d pods; want 6", len(pods.Items))
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 {
				t.Errorf("%s of %s was started %d times again: %+v", c.Name, p.Name, c.RestartCount, c.LastTerminationState.Terminated)
			}
		}
	}
}

// testApplyAgain applies everything a second time.
func (s *services) testApplyAgain(t *testing.T) {
	before := s.versions(t)
	servers, err := objects.Provision(t.Context(), s.path("", "servers"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s.servers, servers); d != "" {
		t.Error("the credentials of the servers were made anew")
	}
	if err := objects.Apply(t.Context(), s.admin, s.values()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, s.versions(t)); d != "" {
		t.Errorf("objects have changed (-before +after):\n%s", d)
	}
}

// versions are the generations of the objects that have some, and the versions of
// others that nobody but the lab writes.
func (s *services) versions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	note := func(kind string, list runtime.Object, err error) {
		if err != nil {
			t.Fatal(err)
		}
		_ = meta.EachListItem(list, func(o runtime.Object) error { // the function returns none
			m := o.(metav1.Object)
			all[kind+" "+m.GetNamespace()+"/"+m.GetName()] = string(m.GetUID()) + fmt.Sprint(m.GetGeneration())
			if m.GetGeneration() == 0 {
				all[kind+" "+m.GetNamespace()+"/"+m.GetName()] += " " + m.GetResourceVersion()
			}
			return nil
		})
	}
	deployments, err := s.api.AppsV1().Deployments("").List(t.Context(), metav1.ListOptions{})
	note("deployment", deployments, err)
	sets, err := s.api.AppsV1().DaemonSets("").List(t.Context(), metav1.ListOptions{})
	note("daemon set", sets, err)
	secrets, err := s.api.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	note("secret", secrets, err)
	bindings, err := s.api.RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})
	note("binding", bindings, err)
	hooks, err := s.api.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	note("webhook", hooks, err)
	return all
}

// testProxyIdentities reads in kube-apiserver's audit log who watches the
// endpoints from each worker.
func (s *services) testProxyIdentities(t *testing.T) { s.watchersAre(t, "kube-proxy") }

// watchersAre checks who watches the endpoints from each worker, with a program.
func (s *services) watchersAre(t *testing.T, program string) {
	want := map[string]string{
		"w1": "system:serviceaccount:kube-system:kube-proxy with a token that does not say which it is",
		"w2": "system:serviceaccount:kube-system:kube-proxy with a JTI",
		"w3": "system:kube-proxy with a X509SHA256",
	}
	eventually(t, "the watches of "+program, func(context.Context) error {
		got := map[string]string{}
		for _, e := range s.audited(t) {
			if e.ObjectRef.Resource != "endpointslices" || e.Verb != "watch" && e.Verb != "list" || !strings.HasPrefix(e.UserAgent, program+"/") {
				continue
			}
			kind := "token that does not say which it is"
			if id := e.User.Extra["authentication.kubernetes.io/credential-id"]; len(id) > 0 {
				kind, _, _ = strings.Cut(id[0], "=")
			}
			got["w"+strings.TrimPrefix(e.SourceIPs[0], "10.99.0.2")] = e.User.Username + " with a " + kind
		}
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("-want +got:\n%s", d)
		}
		return nil
	})
}

// audited are the events in kube-apiserver's audit log.
func (s *services) audited(t *testing.T) []auditv1.Event {
	t.Helper()
	var events []auditv1.Event
	for line := range bytes.Lines(read(t, s.path("cp1", "tmp/audit.log"))) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			continue // it is being written
		}
		events = append(events, e)
	}
	return events
}

// testFirstService calls kube-apiserver from each worker, at the address that
// pods are told.
func (s *services) testFirstService(t *testing.T) {
	for i, w := range s.workers {
		config := rest.CopyConfig(s.admin)
		config.Host, config.ServerName, config.Dial = "https://10.96.0.1:443", "kubernetes.default.svc", w.node.Dial
		if _, err := whoami(t, config); err != nil {
			t.Errorf("through kube-proxy by %s: %v", objects.ProxyModes()[i], err)
		}
	}
}

func (s *services) testNewService(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	took, err := proxywatch.Check(ctx, s.api, "lab-load", s.dials())
	if err != nil {
		t.Error(err)
	}
	t.Log("reached after", took)
	if left, err := s.api.CoreV1().Services("lab-load").List(t.Context(), metav1.ListOptions{}); err != nil || len(left.Items) > 0 {
		t.Errorf("%d services are left, %v", len(left.Items), err)
	}
	// The test can fail: nobody programs the services of cp1.
	dial := map[string]proxywatch.Dial{"cp1": s.nodes[0].Dial}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := proxywatch.Check(ctx, s.api, "lab-load", dial); err == nil || !strings.Contains(err.Error(), "node cp1") {
		t.Errorf("a node without kube-proxy: %v", err)
	}
}

// flunders are the objects of the extension API server.
var flunders = schema.GroupVersionResource{Group: "wardle.example.com", Version: "v1alpha1", Resource: "flunders"}

// createFlunder creates one through kube-apiserver, as somebody.
func createFlunder(ctx context.Context, t *testing.T, config *rest.Config, name string) error {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Resource(flunders).Namespace("lab-load").Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": flunders.GroupVersion().String(), "kind": "Flunder", "metadata": map[string]any{"name": name},
	}}, metav1.CreateOptions{})
	return err
}

func (s *services) testExtension(t *testing.T) {
	eventually(t, "the extension API server is called", func(ctx context.Context) error {
		return createFlunder(ctx, t, s.admin, "first")
	})
	file := filepath.Join(t.TempDir(), "jane.conf")
	run(t, "kubepki", "kubeconfig", "user", "jane", "--group=dev", "--root="+s.path("cp1", ""), "-f", file)
	jane := restConfig(t, file)
	if err := createFlunder(t.Context(), t, jane, "second"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "jane" cannot create`) {
		t.Errorf("a user without the right: %v; want that jane is forbidden", err)
	}
	s.allow(t, "dev")
	eventually(t, "a user with the right", func(ctx context.Context) error { return createFlunder(ctx, t, jane, "second") })
	eventually(t, "the extension's own log names the user", func(context.Context) error {
		log := s.log(t, s.on(t, "wardle", "wardle-server"), "wardle", "sample-apiserver")
		if !regexp.MustCompile(`"verb":"create","user":\{"username":"jane","groups":\["dev","system:authenticated"\]`).MatchString(log) {
			return errors.New("it does not")
		}
		return nil
	})
}

// allow lets a group create flunders.
func (s *services) allow(t *testing.T, group string) {
	t.Helper()
	roles := s.api.RbacV1()
	_, err := roles.Roles("lab-load").Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "flunders"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{flunders.Group}, Resources: []string{flunders.Resource}, Verbs: []string{"create"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = roles.RoleBindings("lab-load").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "flunders"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "flunders"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: group}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// log is what the containers of a name have written, on their node.
func (s *services) log(t *testing.T, w *worker, namespace, container string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.root, "var/log/pods", namespace+"_*", container, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("logs of %s on %s: %d, %v", container, w.name, len(files), err)
	}
	var all []byte
	for _, f := range files {
		all = append(all, read(t, f)...)
	}
	return string(all)
}

// testExtensionStrangers calls the extension API server as the front proxy does,
// but with other credentials.
func (s *services) testExtensionStrangers(t *testing.T) {
	w := s.on(t, "wardle", "wardle-server")
	address := "https://" + s.address(w) + ":8443"
	for name, test := range map[string]struct {
		show credential
		user string
	}{
		"the front proxy":            {load(t, s.pki("front-proxy-client")), "heather"},
		"kube-apiserver to kubelets": {load(t, s.pki("apiserver-kubelet-client")), "kube-apiserver-kubelet-client"},
		"nobody":                     {credential{}, "system:anonymous"},
	} {
		config := test.show.as(s.admin)
		config.Host, config.CAData, config.CAFile, config.ServerName = address, s.servers.Extension.Authority, "", "api.wardle.svc"
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return headers{map[string]string{"X-Remote-User": "heather"}, next}
		})
		err := createFlunder(t.Context(), t, config, "third")
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), fmt.Sprintf("User %q cannot create", test.user)) {
			t.Errorf("%s: %v; want that %s is forbidden", name, err, test.user)
		}
	}
}

func (s *services) address(w *worker) string { return "10.99.0.2" + strings.TrimPrefix(w.name, "w") }

// createConfigMap creates one that is labelled for the webhook.
func (s *services) createConfigMap(ctx context.Context, name string, data map[string]string) error {
	_, err := s.api.CoreV1().ConfigMaps("lab-load").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"lab.kubepki.dev/webhook": "judge"}}, Data: data,
	}, metav1.CreateOptions{})
	return err
}

func (s *services) testWebhook(t *testing.T) {
	if err := s.createConfigMap(t.Context(), "good", nil); err != nil {
		t.Error(err)
	}
	err := s.createConfigMap(t.Context(), "bad", map[string]string{webhook.RefuseKey: "the test says so"})
	if err == nil || !strings.Contains(err.Error(), `admission webhook "configmaps.lab.kubepki.dev" denied the request: the test says so`) {
		t.Errorf("a ConfigMap that is to be refused: %v", err)
	}
	data, err := get(t.Context(), s.on(t, "lab-webhook", "webhook"), "http://127.0.0.1:9444/counts")
	if want := `{"allowed":1,"refused":1}`; err != nil || strings.TrimSpace(string(data)) != want {
		t.Errorf("the webhook counts %s, %v; want %s", data, err, want)
	}
}

func (s *services) testWebhookStrangers(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.servers.Webhook.Authority)
	address := s.address(s.on(t, "lab-webhook", "webhook")) + ":9443"
	call := func(show ...tls.Certificate) error {
		d := &tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "webhook.lab-webhook.svc", Certificates: show}}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		// With TLS 1.3 the server's refusal comes with the first answer.
		if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		_, err = io.ReadAll(conn)
		return err
	}
	other, err := tls.X509KeyPair(s.servers.ExtensionEtcd.ClientCertificate, s.servers.ExtensionEtcd.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.X509KeyPair(s.servers.Webhook.ClientCertificate, s.servers.Webhook.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := call(own); err != nil {
		t.Errorf("kube-apiserver's credential: %v", err)
	}
	if err := call(); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v; want that one is required", err)
	}
	// Go's client shows nothing that the server's authorities have not signed.
	forced := other
	d := &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forced, nil }}
	d.RootCAs, d.ServerName = roots, "webhook.lab-webhook.svc"
	conn, err := (&tls.Dialer{Config: d}).DialContext(t.Context(), "tcp", address)
	if err == nil {
		_, err = io.ReadAll(conn)
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("with a certificate of another authority: %v; want that it is unknown", err)
	}
}

// podCounts are what the client's pod counts.
func (s *services) podCounts(ctx context.Context, t *testing.T) (map[string]podclient.Counts, error) {
	t.Helper()
	data, err := get(ctx, s.on(t, "lab-client", "client"), "http://127.0.0.1:9445/counts")
	if err != nil {
		return nil, err
	}
	var counts map[string]podclient.Counts
	return counts, json.Unmarshal(data, &counts)
}

func (s *services) testPodClient(t *testing.T) {
	before, err := s.podCounts(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod makes more requests, and none fails", func(ctx context.Context) error {
		after, err := s.podCounts(ctx, t)
		if err != nil {
			return err
		}
		for kind := range before {
			if after[kind].Failures != before[kind].Failures {
				t.Errorf("%s: %s", kind, after[kind].Last)
			}
			if after[kind].Requests < before[kind].Requests+3 {
				return fmt.Errorf("%s: %d requests after %d", kind, after[kind].Requests, before[kind].Requests)
			}
		}
		return nil
	})
}

// testWrongBundles lets kube-apiserver trust another authority, and then the
// right one again.
func (s *services) testWrongBundles(t *testing.T) {
	s.setBundles(t, s.servers.Extension.Authority, s.servers.Webhook.Authority)
	const unknown = "x509: certificate signed by unknown authority"
	eventually(t, "a webhook that is not trusted", func(ctx context.Context) error {
		if err := s.createConfigMap(ctx, "wrong-"+rand.String(5), nil); err == nil || !strings.Contains(err.Error(), unknown) {
			return fmt.Errorf("%w; want %s", err, unknown)
		}
		return nil
	})
	eventually(t, "an extension API server that is not trusted", func(ctx context.Context) error {
		if message := s.unavailable(ctx, t); !strings.Contains(message, unknown) {
			return fmt.Errorf("%s; want %s", message, unknown)
		}
		return nil
	})
	s.setBundles(t, s.servers.Webhook.Authority, s.servers.Extension.Authority)
	eventually(t, "both are trusted again", func(ctx context.Context) error {
		if message := s.unavailable(ctx, t); message != "" {
			return errors.New(message)
		}
		return s.createConfigMap(ctx, "right-"+rand.String(5), nil)
	})
}

// setBundles sets the two caBundles.
func (s *services) setBundles(t *testing.T, webhook, extension []byte) {
	t.Helper()
	hook := fmt.Appendf(nil, `[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":%q}]`, base64.StdEncoding.EncodeToString(webhook))
	if _, err := s.api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), "lab-webhook", types.JSONPatchType, hook, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	service := fmt.Appendf(nil, `{"spec":{"caBundle":%q}}`, base64.StdEncoding.EncodeToString(extension))
	err := s.api.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(apiService).Body(service).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

// apiService is the path of the extension's APIService.
const apiService = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com"

// unavailable is why the APIService of the extension is not available; empty: it
// is.
func (s *services) unavailable(ctx context.Context, t *testing.T) string {
	t.Helper()
	data, err := s.api.CoreV1().RESTClient().Get().AbsPath(apiService).DoRaw(ctx)
	if err != nil {
		return err.Error()
	}
	var service struct {
		Status struct{ Conditions []metav1.Condition }
	}
	if err := json.Unmarshal(data, &service); err != nil {
		t.Fatal(err)
	}
	for _, c := range service.Status.Conditions {
		if c.Type == "Available" && c.Status == metav1.ConditionTrue {
			return ""
		} else if c.Type == "Available" {
			return c.Reason + ": " + c.Message
		}
	}
	return "no condition yet"
}

// testProxyClients puts kube-proxy's client in its place. The rules that
// kube-proxy has left are taken away: nothing may lean on them.
func (s *services) testProxyClients(t *testing.T) {
	v := s.values()
	v.ProxyClient = true
	if err := objects.Apply(t.Context(), s.admin, v); err != nil {
		t.Fatal(err)
	}
	s.watchersAre(t, v.KubeProxy())
	for _, w := range s.workers {
		p, err := w.node.Run(&lab.Manifest{Name: "cleanup", Command: []string{"kube-proxy", "--cleanup"}, Env: []string{"PATH=/usr/sbin:/usr/bin"}})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
	}
	if _, err := s.workers[0].node.Dial(t.Context(), "tcp", "10.96.0.1:443"); err == nil {
		t.Error("the rules of kube-proxy are still there")
	}
	eventually(t, "all pods run without kube-proxy", s.available)
	s.testPodClient(t)
	for _, w := range s.workers {
		eventually(t, "the client on "+w.name+" is well", func(ctx context.Context) error {
			answer, err := get(ctx, w, "http://127.0.0.1:10256/healthz")
			if err == nil && string(answer) != "ok\n" {
				return errors.New(string(answer))
			}
			return err
		})
	}
}
