//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

// withoutCSR turns the controllers off that kubepki controller takes the place of.
const withoutCSR = "--controllers=*,-certificatesigningrequest-approving-controller,-certificatesigningrequest-signing-controller,-certificatesigningrequest-cleaner-controller"

// controllerAccount is the user that the manifests give rights to.
const controllerAccount = "system:serviceaccount:kubepki:kubepki-controller"

// auditMetadata notes each request of the controller.
const auditMetadata = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["` + controllerAccount + `", "` + certManagerAccount + `"]
- level: None
`

// csrCluster is a control plane with kubepki controller in the place of
// kube-controller-manager's controllers.
type csrCluster struct {
	*controlPlane
	kubeconfig string // of the controller's own account
	client     *kubernetes.Clientset
	creator    *kubernetes.Clientset // somebody who bootstraps nodes
	process    *lab.Process
	flags      []string
}

func startCSRCluster(t *testing.T) *csrCluster {
	t.Helper()
	c := &csrCluster{controlPlane: &controlPlane{dir: initCluster(t, 1)}}
	network := newNetwork(t)
	node := addNode(t, network, "cp1", c.path("cp1", ""), "10.99.0.11/24")
	c.nodes = []*lab.Node{node}
	write(t, filepath.Join(node.Root, "etc/kubernetes/audit.yaml"), auditMetadata)
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	c.startAPIServer(t)
	c.manager = start(t, node, "kube-controller-manager", withoutCSR)
	ready(t, etcd, c.manager)
	c.admin = c.conf(t, "super-admin")
	c.client = c.controlPlane.client(t)
	manifests := filepath.Join("..", "deploy", "controller.yaml")
	for _, file := range []string{manifests, filepath.Join("..", "deploy", "flowschema.yaml")} {
		if out, err := kubectl(t, c.controlPlane, "apply", "--validate=strict", "-f", file); err != nil {
			t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
		}
	}
	c.flags = deploymentArgs(t, manifests)
	c.kubeconfig = c.accountKubeconfig(t)
	c.creator = c.bootstrapper(t)
	return c
}

func (c *csrCluster) startAPIServer(t *testing.T) {
	t.Helper()
	c.apiserver = start(t, c.nodes[0], "kube-apiserver", "--audit-policy-file=/etc/kubernetes/audit.yaml", "--audit-log-path=/tmp/audit.log")
	ready(t, c.apiserver)
}

// deploymentArgs are the flags that the Deployment of a file starts the
// controller with.
func deploymentArgs(t *testing.T, file string) []string {
	t.Helper()
	for text := range bytes.SplitSeq(read(t, file), []byte("\n---\n")) {
		var d appsv1.Deployment
		if err := yaml.Unmarshal(text, &d); err == nil && d.Kind == "Deployment" {
			return d.Spec.Template.Spec.Containers[0].Args[1:]
		}
	}
	t.Fatalf("%s has no Deployment", file)
	return nil
}

// accountKubeconfig is a kubeconfig with a token of the controller's account.
func (c *csrCluster) accountKubeconfig(t *testing.T) string {
	t.Helper()
	token, err := c.client.CoreV1().ServiceAccounts("kubepki").CreateToken(t.Context(), "kubepki-controller", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://10.99.0.11:6443", CertificateAuthority: c.pki("ca.crt")}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	path := filepath.Join(c.dir, "controller.conf")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// bootstrapper is a client of somebody who may ask for nodes' certificates.
func (c *csrCluster) bootstrapper(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	for name, role := range map[string]string{
		"test-bootstrap": "system:node-bootstrapper", "test-approve": "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
	} {
		_, err := c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:bootstrappers"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	config := rest.CopyConfig(c.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers", "system:authenticated"}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// startController starts the controller with the flags of the Deployment, on the
// machine's own paths.
func (c *csrCluster) startController(t *testing.T, more ...string) {
	t.Helper()
	command := []string{"kubepki", "controller", "--kubeconfig=" + c.kubeconfig}
	for _, f := range c.flags {
		command = append(command, strings.Replace(f, "=/etc/kubernetes/pki", "="+c.pki(""), 1))
	}
	probe := &url.URL{Scheme: "http", Host: "127.0.0.1:10269", Path: "/readyz"}
	var err error
	if c.process, err = c.nodes[0].Run(&lab.Manifest{Name: "kubepki-controller", Command: append(command, more...), Probe: probe}); err != nil {
		t.Fatal(err)
	}
	p := c.process
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("controller:\n%s", p.Log())
		}
	})
	ready(t, p)
}

// ask creates requests for the client certificates of nodes.
func (c *csrCluster) ask(t *testing.T, prefix string, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("%s-%d", prefix, i)
		c.create(t, c.creator, name, certificatesv1.KubeAPIServerClientKubeletSignerName, name, "client auth")
	}
}

func (c *csrCluster) create(t *testing.T, as *kubernetes.Clientset, name, signer, node string, usage certificatesv1.KeyUsage, ips ...net.IP) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}, IPAddresses: ips,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = as.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signer, Usages: []certificatesv1.KeyUsage{"digital signature", usage},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// count is how many requests of a prefix are approved, and how many are issued.
func (c *csrCluster) count(ctx context.Context, prefix string) (approved, issued int, err error) {
	list, err := c.client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	for _, o := range list.Items {
		if !strings.HasPrefix(o.Name, prefix+"-") {
			continue
		}
		if len(o.Status.Conditions) > 0 && o.Status.Conditions[0].Type == certificatesv1.CertificateApproved {
			approved++
		}
		if len(o.Status.Certificate) > 0 {
			issued++
		}
	}
	return approved, issued, nil
}

// issued waits until all of a prefix are issued.
func (c *csrCluster) issued(t *testing.T, prefix string, n int) {
	t.Helper()
	eventually(t, "all requests "+prefix+" are issued", func(ctx context.Context) error {
		approved, issued, err := c.count(ctx, prefix)
		if err == nil && issued != n {
			err = fmt.Errorf("%d of %d are approved, %d are issued", approved, n, issued)
		}
		return err
	})
}

func TestControllerAsItsOwnServiceAccount(t *testing.T) {
	c := startCSRCluster(t)
	c.startController(t)
	if !t.Run("it approves and signs", func(t *testing.T) { testIssues(t, c) }) {
		return // all that follows would wait in vain
	}
	t.Run("it denies, and says nothing of the policy", func(t *testing.T) { testDenies(t, c) })
	t.Run("it ends, and gives the lease back", func(t *testing.T) { testEnds(t, c) })
	t.Run("killed between approval and signature", func(t *testing.T) { testKilledBetween(t, c) })
	t.Run("killed in the middle of many", func(t *testing.T) { testKilledAmongMany(t, c) })
	// Before the API server is started anew: at first that refuses what it allows.
	t.Run("it asked for what its rights are, and for nothing else", func(t *testing.T) { testRights(t, c) })
	t.Run("the API server is started anew", func(t *testing.T) { testAPIServerRestarts(t, c) })
}

func testIssues(t *testing.T, c *csrCluster) {
	c.ask(t, "first", 20)
	c.issued(t, "first", 20)
	// A node that is there gets a serving certificate for its address.
	node, err := c.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "first-1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.31"}}
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(c.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:node:first-1", Groups: []string{"system:nodes", "system:authenticated"}}
	as, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, as, "serving-0", certificatesv1.KubeletServingSignerName, "first-1", "server auth", net.ParseIP("10.0.0.31"))
	c.issued(t, "serving", 1)
}

func testDenies(t *testing.T, c *csrCluster) {
	c.create(t, c.creator, "bad-0", certificatesv1.KubeAPIServerClientKubeletSignerName, "bad", "client auth", net.ParseIP("10.96.0.1"))
	eventually(t, "it is denied", func(ctx context.Context) error {
		o, err := c.client.CertificatesV1().CertificateSigningRequests().Get(ctx, "bad-0", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(o.Status.Conditions) != 1 || o.Status.Conditions[0].Type != certificatesv1.CertificateDenied {
			return fmt.Errorf("conditions %v", o.Status.Conditions)
		}
		if m := o.Status.Conditions[0].Message; strings.Contains(m, "10.96") || strings.Contains(m, "address") {
			t.Errorf("the message is %q", m)
		}
		return nil
	})
	eventually(t, "an Event tells", func(ctx context.Context) error {
		events, err := c.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=Denied"})
		if err == nil && len(events.Items) != 1 {
			err = fmt.Errorf("%d events", len(events.Items))
		}
		return err
	})
}

func testEnds(t *testing.T, c *csrCluster) {
	if err := c.process.Stop(); err != nil {
		t.Fatal(err)
	}
	lease, err := c.client.CoordinationV1().Leases("kubepki").Get(t.Context(), "kubepki-controller", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
		t.Errorf("the lease is held by %v, %v", lease.Spec.HolderIdentity, err)
	}
}

func testKilledBetween(t *testing.T, c *csrCluster) {
	roles := c.client.RbacV1().ClusterRoleBindings()
	binding, err := roles.Get(t.Context(), "kubepki-controller:sign", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := roles.Delete(t.Context(), binding.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.startController(t, "--leader-elect=false")
	c.ask(t, "between", 20)
	eventually(t, "all are approved", func(ctx context.Context) error {
		approved, issued, err := c.count(ctx, "between")
		if err == nil && (approved != 20 || issued != 0) {
			err = fmt.Errorf("%d are approved, %d are issued", approved, issued)
		}
		return err
	})
	if err := c.process.Kill(); err != nil {
		t.Fatal(err)
	}
	binding.ResourceVersion, binding.UID = "", ""
	if _, err := roles.Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.startController(t, "--leader-elect=false")
	c.issued(t, "between", 20)
}

func testKilledAmongMany(t *testing.T, c *csrCluster) {
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.ask(t, "many", 100)
	}()
	eventually(t, "some are issued", func(ctx context.Context) error {
		_, issued, err := c.count(ctx, "many")
		if err == nil && issued < 10 {
			err = fmt.Errorf("%d", issued)
		}
		return err
	})
	if err := c.process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.startController(t, "--leader-elect=false")
	<-asked
	c.issued(t, "many", 100)
}

func testAPIServerRestarts(t *testing.T, c *csrCluster) {
	if err := c.apiserver.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // the controller has lost its watches, and tries again
	c.startAPIServer(t)
	c.ask(t, "after", 20)
	c.issued(t, "after", 20)
	if err := c.process.Stop(); err != nil {
		t.Error(err)
	}
}

// right is one thing that an account may do.
type right struct{ namespace, verb, resource string }

// testRights compares what the controller asked for with its roles: nothing was
// refused but what the test forbade, and there is no right that it never used.
func testRights(t *testing.T, c *csrCluster) {
	used := map[right]bool{}
	for line := range bytes.Lines(read(t, c.path("cp1", "tmp/audit.log"))) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil || e.ObjectRef == nil {
			continue
		}
		r := right{verb: e.Verb, resource: e.ObjectRef.Resource, namespace: e.ObjectRef.Namespace}
		if e.ObjectRef.Subresource != "" {
			r.resource += "/" + e.ObjectRef.Subresource
		}
		used[r] = true
		if e.ResponseStatus != nil && e.ResponseStatus.Code == 403 && r.resource != "certificatesigningrequests/status" {
			t.Errorf("refused: %+v", r)
		}
	}
	var unused []string
	c.eachRule(t, func(namespace string, rule rbacv1.PolicyRule) {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				if !used[right{namespace: namespace, verb: verb, resource: resource}] {
					unused = append(unused, strings.TrimSpace(namespace+" "+verb+" "+resource))
				}
			}
		}
	})
	// signers are no objects: admission asks for these. A watch lists what it
	// begins with; list is for API servers that cannot do that. Events are
	// patched when they come again, and what is an hour old is deleted. What
	// changes under our hands, and what was held by nobody, is read again.
	seldom := []string{
		"approve signers", "sign signers", "default patch events", "delete certificatesigningrequests",
		"get certificatesigningrequests", "list certificatesigningrequests", "get nodes", "list nodes",
	}
	unused = slices.DeleteFunc(unused, func(s string) bool { return slices.Contains(seldom, s) })
	if len(unused) > 0 {
		t.Errorf("rights that were not used: %q", unused)
	}
}

// eachRule calls f with each rule of the controller's roles.
func (c *csrCluster) eachRule(t *testing.T, f func(namespace string, rule rbacv1.PolicyRule)) {
	t.Helper()
	cluster, err := c.client.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := errors.New("no rules")
	for _, r := range cluster.Items {
		if strings.HasPrefix(r.Name, "kubepki-controller:") {
			for _, rule := range r.Rules {
				f("", rule)
				found = nil
			}
		}
	}
	roles, err := c.client.RbacV1().Roles("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles.Items {
		if r.Name == "kubepki-controller" {
			for _, rule := range r.Rules {
				f(r.Namespace, rule)
			}
		}
	}
	if found != nil {
		t.Fatal(found)
	}
}
