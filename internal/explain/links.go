package explain

import (
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// roleOf says what stands at a place.
const (
	roleServing     = "the certificate that the server shows"
	roleClient      = "the credential that the caller shows"
	roleServerTrust = "whom the caller trusts"
	roleClientTrust = "whom the server lets in"
	roleSigningKey  = "the key that signs tokens"
	roleVerifyKeys  = "the keys that verify tokens"
	roleToken       = "the token" //nolint:gosec // not one
)

// spot is where something stands on a node of kubeadm, and what names it there.
type spot struct{ path, setting string }

// knownLink is a link of docs/links.md with the files of both ends, as kubeadm
// lays them out.
type knownLink struct {
	number      int
	callers     []string
	callee      string
	serving     spot // what the callee shows
	serverTrust spot // by what the caller judges it
	client      spot // what the caller shows
	clientTrust spot // by what the callee judges it
	token       bool // the caller shows a token
}

const (
	pki  = "/etc/kubernetes/pki/"
	etc  = "/etc/kubernetes/"
	inCA = "clusters[].cluster.certificate-authority-data"
	inMe = "users[].user.client-certificate-data"
)

var (
	apiServing  = spot{pki + "apiserver.crt", "--tls-cert-file"}
	apiTrust    = spot{pki + "ca.crt", "--client-ca-file"}
	etcdServing = spot{pki + "etcd/server.crt", "--cert-file"}
	etcdTrust   = spot{pki + "etcd/ca.crt", "--trusted-ca-file"}
	kubeletPair = spot{"/var/lib/kubelet/pki/kubelet.crt", "--tls-cert-file, or kubelet-server-current.pem beside it"}
	saToken     = spot{"/var/run/secrets/kubernetes.io/serviceaccount/token", ""}
	saKeys      = spot{pki + "sa.pub", "--service-account-key-file"}
	kubeRootCA  = spot{"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "ConfigMap kube-root-ca.crt, of kube-controller-manager's --root-ca-file"}
)

func kubeconfigLink(number int, file string, callers ...string) knownLink {
	return knownLink{number: number, callers: callers, callee: catalog.APIServer, serving: apiServing, clientTrust: apiTrust, serverTrust: spot{file, inCA}, client: spot{file, inMe}}
}

// knownLinks are in the order of their numbers.
var knownLinks = []knownLink{
	{number: 1, callers: []string{catalog.Etcd}, callee: catalog.Etcd, serving: spot{pki + "etcd/peer.crt", "--peer-cert-file"}, client: spot{pki + "etcd/peer.crt", "--peer-cert-file"},
		serverTrust: spot{pki + "etcd/ca.crt", "--peer-trusted-ca-file"}, clientTrust: spot{pki + "etcd/ca.crt", "--peer-trusted-ca-file"}},
	{number: 2, callers: []string{catalog.APIServer, catalog.Etcdctl}, callee: catalog.Etcd, serving: etcdServing, serverTrust: spot{pki + "etcd/ca.crt", "of whoever dials"}, clientTrust: etcdTrust},
	{number: 3, callers: []string{catalog.APIServer}, callee: catalog.Etcd, serving: etcdServing, clientTrust: etcdTrust,
		serverTrust: spot{pki + "etcd/ca.crt", "--etcd-cafile"}, client: spot{pki + "apiserver-etcd-client.crt", "--etcd-certfile"}},
	{number: 4, callers: nil, callee: catalog.APIServer, serving: apiServing, serverTrust: spot{pki + "ca.crt", "of whoever dials"}, clientTrust: apiTrust},
	kubeconfigLink(5, etc+"controller-manager.conf", catalog.ControllerManager),
	kubeconfigLink(6, etc+"scheduler.conf", catalog.Scheduler),
	{number: 7, callers: []string{catalog.KubeProxy}, callee: catalog.APIServer, serving: apiServing, serverTrust: kubeRootCA, client: saToken, clientTrust: saKeys, token: true},
	kubeconfigLink(8, etc+"kubelet.conf", catalog.Kubelet),
	kubeconfigLink(9, etc+"admin.conf", Kubectl, Kubeadm, catalog.Admin, catalog.SuperAdmin),
	{number: 10, callers: nil, callee: catalog.Kubelet, serving: kubeletPair},
	{number: 11, callers: []string{catalog.APIServer}, callee: catalog.Kubelet, serving: kubeletPair, serverTrust: spot{pki + "ca.crt", "--kubelet-certificate-authority"},
		client: spot{pki + "apiserver-kubelet-client.crt", "--kubelet-client-certificate"}, clientTrust: spot{pki + "ca.crt", "authentication.x509.clientCAFile in /var/lib/kubelet/config.yaml"}},
	{number: 12, callers: []string{catalog.ControllerManager}, callee: catalog.APIServer, client: spot{pki + "sa.key", "--service-account-signing-key-file, --service-account-private-key-file"}, clientTrust: saKeys, token: true},
	{number: 13, callers: []string{catalog.APIServer}, callee: Extension, serving: spot{"", "the serving certificate of the extension API server"}, serverTrust: spot{"", "spec.caBundle of the APIService"},
		client: spot{pki + "front-proxy-client.crt", "--proxy-client-cert-file"}, clientTrust: spot{pki + "front-proxy-ca.crt", "--requestheader-client-ca-file, published in kube-system/extension-apiserver-authentication"}},
	{number: 14, callers: []string{catalog.APIServer}, callee: Webhook, serving: spot{"", "the serving certificate of the webhook"}, serverTrust: spot{"", "clientConfig.caBundle of its configuration"}},
	{number: 15, callers: []string{catalog.Etcdctl}, callee: catalog.Etcd, serving: etcdServing, clientTrust: etcdTrust,
		serverTrust: spot{pki + "etcd/ca.crt", "--cacert"}, client: spot{pki + "etcd/healthcheck-client.crt", "--cert"}},
	{number: 16, callers: []string{catalog.Kubelet, Kubeadm}, callee: catalog.APIServer, serving: apiServing, serverTrust: spot{etc + "bootstrap-kubelet.conf", inCA},
		client: spot{etc + "bootstrap-kubelet.conf", "users[].user.token"}, clientTrust: spot{"", "Secret bootstrap-token-ID in kube-system"}, token: true},
	{number: 17, callers: []string{Pod, Extension, MetricsServer, Webhook}, callee: catalog.APIServer, serving: apiServing, serverTrust: kubeRootCA, client: saToken, clientTrust: saKeys, token: true},
	{number: 19, callers: nil, callee: catalog.ControllerManager, serving: spot{"", "--tls-cert-file; made by itself otherwise"}, clientTrust: spot{pki + "ca.crt", "--client-ca-file"}},
	{number: 19, callers: nil, callee: catalog.Scheduler, serving: spot{"", "--tls-cert-file; made by itself otherwise"}, clientTrust: spot{pki + "ca.crt", "--client-ca-file"}},
	{number: 20, callers: []string{MetricsServer}, callee: catalog.Kubelet, serving: kubeletPair, serverTrust: spot{pki + "ca.crt", "--kubelet-certificate-authority of metrics-server"},
		client: saToken, clientTrust: spot{pki + "ca.crt", "authentication.x509.clientCAFile in /var/lib/kubelet/config.yaml, and TokenReviews"}, token: true},
}

// linkOf returns a known link; it must be one.
func linkOf(number int) *knownLink {
	return &knownLinks[slices.IndexFunc(knownLinks, func(k knownLink) bool { return k.number == number })]
}

// narrow keeps the links that use the file of its own which a line names, and, where nobody
// says whose log it is, those of the authority that it names, by the names that
// kubeadm gives to authorities. Where none is left, it keeps all.
func (f *Facts) narrow(links []int, k class, component string) []int {
	if f.Path != "" && k.sense == ofFile {
		links = those(links, func(l *knownLink) bool { return l.uses(f.Path) })
	}
	if component != "" {
		return links
	}
	switch {
	case f.Authority == "kubernetes":
		return those(links, func(l *knownLink) bool { return l.callee == catalog.APIServer || l.callee == catalog.Kubelet })
	case strings.Contains(f.Authority, "etcd"):
		return those(links, func(l *knownLink) bool { return l.callee == catalog.Etcd })
	case strings.Contains(f.Authority, "front-proxy"):
		return those(links, func(l *knownLink) bool { return l.number == 13 })
	}
	return links
}

func those(links []int, fits func(*knownLink) bool) []int {
	var kept []int
	for _, n := range links {
		if fits(linkOf(n)) {
			kept = append(kept, n)
		}
	}
	if len(kept) == 0 {
		return links
	}
	return kept
}

// uses tells whether a file, or the certificate beside a key, is one of the link's.
func (l *knownLink) uses(file string) bool {
	if strings.HasPrefix(file, "/var/lib/kubelet/pki/kubelet-client") {
		return l.number == 8
	}
	stem := strings.TrimSuffix(file, ".key")
	for _, s := range []spot{l.serving, l.serverTrust, l.client, l.clientTrust} {
		if s.path != "" && (s.path == file || strings.TrimSuffix(s.path, ".crt") == stem) {
			return true
		}
	}
	return false
}
