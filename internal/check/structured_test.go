package check_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

const (
	apiserver = manifest + "kube-apiserver.yaml"
	conf      = "/etc/kubernetes/conf/"
)

// flags adds flags to a component's manifest of cp1.
func flags(c *testpki.Cluster, component string, add ...string) {
	old := "    - " + component + "\n"
	c.Edit("cp1", "manifests/"+component+".yaml", old, old+"    - "+strings.Join(add, "\n    - ")+"\n")
}

// configured gives the apiserver a configuration file: a flag, and a text in which
// @CA@ stands for the cluster's authority, indented.
func configured(flag, kind, text string) func(c *testpki.Cluster) {
	return func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--"+flag+"="+conf+"file.yaml")
		head := "apiVersion: apiserver.config.k8s.io/v1\nkind: " + kind + "\n"
		if kind == "EgressSelectorConfiguration" {
			head = "apiVersion: apiserver.k8s.io/v1beta1\nkind: " + kind + "\n"
		}
		c.Write("cp1", conf+"file.yaml", []byte(head+strings.ReplaceAll(text, "@CA@", indented(c.Read("cp1", "pki/ca.crt")))))
	}
}

func indented(pem []byte) string {
	return "|\n        " + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n        ")
}

func authentication(text string) func(*testpki.Cluster) {
	return configured("authentication-config", "AuthenticationConfiguration", text)
}

func authorization(text string) func(*testpki.Cluster) {
	return func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --authorization-mode=Node,RBAC\n", "")
		configured("authorization-config", "AuthorizationConfiguration", text)(c)
	}
}

func egress(text string) func(*testpki.Cluster) {
	return configured("egress-selector-config-file", "EgressSelectorConfiguration", text)
}

// then does several things one after another.
func then(all ...func(*testpki.Cluster)) func(*testpki.Cluster) {
	return func(c *testpki.Cluster) {
		for _, do := range all {
			do(c)
		}
	}
}

// webhook writes a kubeconfig that leads to a webhook, with a client's pair and
// the webhook's authority in files beside it.
func webhook(c *testpki.Cluster) {
	for _, name := range []string{"apiserver-kubelet-client.crt", "apiserver-kubelet-client.key"} {
		c.Copy("cp1", "pki/"+name, "cp1", conf+strings.Replace(name, "apiserver-kubelet-client", "client", 1))
	}
	c.Copy("cp1", "pki/front-proxy-ca.crt", "cp1", conf+"webhook-ca.crt")
	c.Write("cp1", conf+"webhook.conf", []byte(webhookConf))
	c.Chmod("cp1", conf+"webhook.conf", 0o644) // nothing in it is private
}

const webhookConf = `apiVersion: v1
kind: Config
clusters: [{name: hook, cluster: {server: "https://hook.example.test:8443/review", certificate-authority: webhook-ca.crt}}]
users: [{name: api, user: {client-certificate: client.crt, client-key: client.key}}]
contexts: [{name: hook, context: {cluster: hook, user: api}}]
current-context: hook
`

const (
	jwt      = "jwt:\n- issuer: {url: https://id.example.test, audiences: [kube]}\n  claimMappings: {username: {claim: sub, prefix: \"\"}}\n"
	jwtCA    = "jwt:\n- issuer:\n      url: https://id.example.test\n      audiences: [kube]\n      certificateAuthority: @CA@\n  claimMappings: {username: {claim: sub, prefix: \"\"}}\n"
	nodeRBAC = "authorizers:\n- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n"
	hookAuth = nodeRBAC + "- type: Webhook\n  name: hook.example.test\n  webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, authorizedTTL: 30s, unauthorizedTTL: 30s, " +
		"connectionInfo: {type: KubeConfigFile, kubeConfigFile: " + conf + "webhook.conf}}\n"
	proxyTLS = "egressSelections:\n- name: cluster\n  connection:\n    proxyProtocol: HTTPConnect\n    transport: {tcp: {url: \"https://konnectivity.example.test:8131\", tlsConfig: " +
		"{caBundle: " + conf + "webhook-ca.crt, clientCert: " + conf + "client.crt, clientKey: " + conf + "client.key}}}\n"
)

// configuredWell are healthy clusters that are configured in files.
var configuredWell = map[string]struct {
	kind testpki.Kind
	do   func(*testpki.Cluster)
}{
	"authentication by file, without an authority of its own": {do: authentication(jwt + "anonymous: {enabled: true, conditions: [{path: /livez}]}\n")},
	"authentication by file, with an authority":               {do: authentication(jwtCA)},
	"anonymous access switched off by file":                   {do: authentication("jwt: []\nanonymous: {enabled: false}\n")},
	"authentication by file, in an older version": {do: then(authentication(jwtCA), func(c *testpki.Cluster) {
		c.Edit("cp1", conf+"file.yaml", "apiserver.config.k8s.io/v1\n", "apiserver.config.k8s.io/v1beta1\n")
	})},
	"an issuer that is verified by its own certificate alone": {do: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--oidc-issuer-url=https://id.example.test", "--oidc-client-id=kube", "--oidc-ca-file="+conf+"id.crt")
		c.SelfMade("cp1", conf+"id")
	}},
	"authorization by file":                 {do: authorization(nodeRBAC)},
	"authorization by file, with a webhook": {do: then(webhook, authorization(hookAuth))},
	"a webhook of each kind that flags name": {do: then(webhook, func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--authentication-token-webhook-config-file="+conf+"webhook.conf", "--audit-webhook-config-file="+conf+"webhook.conf")
	})},
	"a webhook that is asked without any credential, verified by the machine's authorities": {do: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--audit-webhook-config-file="+conf+"audit.conf")
		c.Write("cp1", conf+"audit.conf", []byte(strings.NewReplacer(", certificate-authority: webhook-ca.crt", "", "{client-certificate: client.crt, client-key: client.key}", "{}").Replace(webhookConf)))
		c.Chmod("cp1", conf+"audit.conf", 0o644)
	}},
	"admission plugins with files of their own": {do: then(webhook, configured("admission-control-config-file", "AdmissionConfiguration",
		"plugins:\n- {name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: "+conf+"webhook.conf}}}\n- {name: ValidatingAdmissionWebhook, path: hooks.yaml}\n- {name: EventRateLimit, path: absent.yaml}\n"),
		func(c *testpki.Cluster) {
			c.Write("cp1", conf+"hooks.yaml", []byte("apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: "+conf+"users.conf\n"))
			c.Write("cp1", conf+"users.conf", []byte("apiVersion: v1\nkind: Config\nusers: [{name: \"*.svc\", user: {client-certificate: client.crt, client-key: client.key}}]\n"))
			c.Write("cp1", conf+"absent.yaml", nil)
		})},
	"konnectivity over TLS":           {do: then(webhook, egress(proxyTLS))},
	"konnectivity over a unix socket": {do: egress("egressSelections:\n- name: cluster\n  connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /etc/kubernetes/konnectivity-server/konnectivity-server.socket}}}\n")},
	"Secrets encrypted by a plugin, in a file that anybody may read": {do: then(
		configured("encryption-provider-config", "EncryptionConfiguration", "resources:\n- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: k, endpoint: \"unix:///k\"}}, {identity: {}}]}\n"),
		func(c *testpki.Cluster) { c.Chmod("cp1", conf+"file.yaml", 0o644) })},
	"tokens signed elsewhere, and keys left over": {do: func(c *testpki.Cluster) {
		external(c)
		c.NewKey("cp1", "pki/sa.key", issue.ECDSAP256)
	}},
	"a certificate more for a name of its own": {do: sni},
	"drop-ins of the kubelet": {do: func(c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: true}, x509: {clientCAFile: /nowhere.crt}}\nauthorization: {mode: AlwaysAllow}\nreadOnlyPort: 10255")
		dropIns(c, map[string]string{
			"10-a.conf": "authentication: {anonymous: {enabled: false}}\nauthorization: null", "20/b.conf": "readOnlyPort: 0",
			"90-z.conf": "authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}", "95-z.yaml": "readOnlyPort: 10255",
		})
	}},
	"flags of the kubelet that win over its files": {do: func(c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: true}}\nreadOnlyPort: 10255")
		c.Write("cp1", "/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\"--anonymous-auth=false\"\n"))
		c.Write("cp1", "/etc/default/kubelet", []byte("KUBELET_EXTRA_ARGS=--read-only-port=0\n"))
	}},
	"a kubelet whose serving certificate the cluster signed": {kind: testpki.KubeletCA, do: func(c *testpki.Cluster) { servingCurrent(c) }},
	"etcd by its configuration file, whatever its flags say": {do: func(c *testpki.Cluster) { etcdFile(c, etcdConfig) }},
	"etcd's authority in a block with headers, which etcd and its clients read": {do: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/etcd/ca.crt", headers(c.Read("cp1", "pki/etcd/ca.crt")))
	}},
	"the scheduler by its configuration file": {do: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-scheduler.yaml", "--kubeconfig=/etc/kubernetes/scheduler.conf", "--config="+conf+"scheduler.yaml")
		c.Write("cp1", conf+"scheduler.yaml", []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nclientConnection: {kubeconfig: /etc/kubernetes/scheduler.conf}\n"))
	}},
}

// headers puts a header into the first block of a text.
func headers(text []byte) []byte {
	return []byte(strings.Replace(string(text), "-----\n", "-----\nSubject: x\n\n", 1))
}

func external(c *testpki.Cluster) {
	c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n", "")
	c.Edit("cp1", "manifests/kube-apiserver.yaml", "--service-account-signing-key-file=/etc/kubernetes/pki/sa.key", "--service-account-signing-endpoint=/run/signer.sock")
}

// sni gives the apiserver a certificate of another authority for a name.
func sni(c *testpki.Cluster) { sniUntil(c, testpki.Made.AddDate(1, 0, 0)) }

func sniUntil(c *testpki.Cluster, end time.Time) {
	key := c.NewKey("cp1", "pki/public.key", issue.ECDSAP256)
	cert, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "public"}, DNSNames: []string{"api.public.test", "kubernetes.default.svc"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: testpki.Made, NotAfter: end}, key)
	if err != nil {
		panic(err)
	}
	c.Write("cp1", "pki/public.crt", trust.EncodeCertificates(cert))
	flags(c, "kube-apiserver", "--tls-sni-cert-key="+pki+"public.crt,"+pki+"public.key:api.public.test")
}

func dropIns(c *testpki.Cluster, files map[string]string) {
	c.Write("cp1", "/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\"--config-dir=/etc/kubelet.d\"\n"))
	for name, text := range files {
		c.Write("cp1", "/etc/kubelet.d/"+name, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+text+"\n"))
	}
}

// servingCurrent lets w1's kubelet ask the API for its certificate.
func servingCurrent(c *testpki.Cluster) {
	const dir = "/var/lib/kubelet/pki/"
	pair := slices.Concat(c.Read("w1", dir+"kubelet.crt"), c.Read("w1", dir+"kubelet.key"))
	c.Write("w1", dir+"kubelet-server-2026-06-01.pem", pair)
	os.Symlink("kubelet-server-2026-06-01.pem", c.Path("w1", dir+"kubelet-server-current.pem"))
	c.Write("w1", dir+"kubelet.crt", []byte("left over\n"))
	c.Write("w1", kubeletConfig, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nserverTLSBootstrap: true\nauthentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\n"))
}

const etcdConfig = `name: cp1
listen-client-urls: https://127.0.0.1:2379,https://10.0.0.11:2379
listen-peer-urls: https://10.0.0.11:2380
advertise-client-urls: https://10.0.0.11:2379
initial-advertise-peer-urls: https://10.0.0.11:2380
client-transport-security: {cert-file: /etc/kubernetes/pki/etcd/server.crt, key-file: /etc/kubernetes/pki/etcd/server.key, trusted-ca-file: /etc/kubernetes/pki/etcd/ca.crt, client-cert-auth: true}
peer-transport-security: {cert-file: /etc/kubernetes/pki/etcd/peer.crt, key-file: /etc/kubernetes/pki/etcd/peer.key, trusted-ca-file: /etc/kubernetes/pki/etcd/ca.crt, client-cert-auth: true}
`

// etcdFile lets etcd read a configuration file; its flags are wrong then, which
// is nothing to it.
func etcdFile(c *testpki.Cluster, text string) {
	c.Edit("cp1", "manifests/etcd.yaml", "/etc/kubernetes/pki/etcd/server.crt", "/nowhere.crt")
	flags(c, "etcd", "--config-file="+conf+"etcd.yaml")
	c.Write("cp1", conf+"etcd.yaml", []byte(text))
}

func TestConfigurationInFilesIsHealthy(t *testing.T) {
	for name, w := range configuredWell {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := w.kind
			if kind == "" {
				kind = testpki.Single
			}
			c := testpki.New(t, kind)
			w.do(c)
			r := c.Verify(check.Options{})
			if got := weighty(r); len(got) > 0 {
				t.Errorf("findings:\n%s", describe(got))
			}
			explained(t, r)
		})
	}
}

const (
	jwt0 = "jwt[0].issuer."
	auth = conf + "file.yaml"
	tcp0 = "egressSelections[0].connection.transport.tcp."
)

var misconfigured = []mutation{
	// kube-apiserver, authentication.
	{name: "an issuer's authority has expired", brk: func(c *testpki.Cluster) {
		good := c.Read("cp1", "pki/front-proxy-ca.crt")
		key := c.Read("cp1", "pki/front-proxy-ca.key")
		c.Rename("cp1", "front-proxy-ca", "issuer")
		c.Resign("cp1", "front-proxy-ca", past)
		old := c.Read("cp1", "pki/front-proxy-ca.crt")
		c.Write("cp1", "pki/front-proxy-ca.crt", good)
		c.Write("cp1", "pki/front-proxy-ca.key", key)
		authentication(strings.Replace(jwtCA, "@CA@", indented(old), 1))(c)
	}, id: "cert-expired", path: auth, field: jwt0 + "certificateAuthority"},
	{name: "an issuer's authority is junk", brk: authentication(strings.Replace(jwtCA, "@CA@", "junk", 1)), id: "cert-malformed", path: auth, field: jwt0 + "certificateAuthority"},
	{name: "an issuer without TLS", brk: authentication(strings.Replace(jwt, "https://", "http://", 1)), id: "flag-conflict", path: auth, field: jwt0 + "url"},
	{name: "two issuers are one", brk: authentication(jwt + strings.TrimPrefix(jwt, "jwt:\n")), id: "flag-conflict", path: auth, field: "jwt[1].issuer.url"},
	{name: "an issuer is the one of service accounts", brk: authentication(strings.Replace(jwt, "https://id.example.test", "https://kubernetes.default.svc.cluster.local", 1)),
		id: "flag-conflict", path: auth, field: jwt0 + "url"},
	{name: "anonymous access by flag and by file", brk: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--anonymous-auth=false")
		authentication("anonymous: {enabled: true}\n")(c)
	}, id: "flag-conflict", path: apiserver, field: "--anonymous-auth"},
	{name: "an issuer by flag, and others by file", brk: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--oidc-issuer-url=https://id.example.test", "--oidc-client-id=x")
		authentication(jwt)(c)
	}, id: "flag-conflict", path: apiserver, field: "--oidc-client-id"},
	{name: "the file of authentication is of another kind", brk: configured("authentication-config", "AuthorizationConfiguration", "authorizers: []\n"), id: "flag-conflict", path: auth, field: "kind"},
	{name: "the file of authentication is no YAML", brk: authentication("jwt: [\n"), id: "flag-conflict", path: auth},
	{name: "the file of authentication is missing", brk: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--authentication-config=/etc/kubernetes/auth.yaml")
	}, id: "file-missing", path: "/etc/kubernetes/auth.yaml"},
	{name: "the authority of --oidc-ca-file is missing", brk: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--oidc-issuer-url=https://id.example.test", "--oidc-client-id=x", "--oidc-ca-file="+pki+"oidc.crt")
	}, id: "file-missing", path: pki + "oidc.crt"},

	// kube-apiserver, authorization.
	{name: "everything is allowed by file", brk: authorization("authorizers:\n- {type: Node, name: node}\n- {type: AlwaysAllow, name: alwaysallow}\n"),
		id: "authorization-open", path: auth, field: "authorizers[1].type"},
	{name: "no authorizer is named at all", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --authorization-mode=Node,RBAC\n", "")
	}, id: "authorization-open", path: apiserver, field: "--authorization-mode"},
	{name: "authorizers by flag and by file", brk: configured("authorization-config", "AuthorizationConfiguration", nodeRBAC), id: "flag-conflict", path: apiserver, field: "--authorization-mode"},
	{name: "the file of authorization is empty", brk: authorization("authorizers: []\n"), id: "flag-conflict", path: auth, field: "authorizers"},
	{name: "the kubeconfig of an authorizer is missing", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) { c.Remove("cp1", conf+"webhook.conf") }),
		id: "file-missing", path: conf + "webhook.conf", links: []int{14}},

	// Webhooks and konnectivity.
	{name: "the client certificate for a webhook has expired", brk: then(webhook, authorization(hookAuth), clientExpired), id: "cert-expired", path: conf + "client.crt", links: []int{14}},
	{name: "the client key for a webhook is another's", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) { c.NewKey("cp1", conf+"client.key", issue.ECDSAP256) }),
		id: "key-mismatch", path: conf + "client.key", links: []int{14}},
	{name: "the authority of a webhook is empty", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) { c.Write("cp1", conf+"webhook-ca.crt", nil) }),
		id: "bundle-empty", path: conf + "webhook-ca.crt", links: []int{14}},
	{name: "a webhook is not verified", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) {
		c.Edit("cp1", conf+"webhook.conf", "certificate-authority: webhook-ca.crt", "insecure-skip-tls-verify: true")
	}), id: "verify-off", path: conf + "webhook.conf"},
	{name: "a webhook without TLS", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) { c.Edit("cp1", conf+"webhook.conf", "https://", "http://") }),
		id: "plain-http", path: conf + "webhook.conf", field: "clusters[hook].cluster.server"},
	{name: "the kubeconfig of a webhook names no context", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) { c.Edit("cp1", conf+"webhook.conf", "current-context: hook", "") }),
		id: "kubeconfig-broken", path: conf + "webhook.conf", field: "current-context", links: []int{14}},
	{name: "others may read the key in a webhook's kubeconfig", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) {
		c.Edit("cp1", conf+"webhook.conf", "client-certificate: client.crt, client-key: client.key", "token: abc")
	}), id: "key-permissions", path: conf + "webhook.conf"},
	{name: "konnectivity's client key is missing", brk: then(webhook, egress(proxyTLS), func(c *testpki.Cluster) { c.Write("cp1", conf+"other.key", nil); c.Remove("cp1", conf+"client.key") }),
		id: "file-missing", path: conf + "client.key", links: []int{21}},
	{name: "konnectivity without a client certificate", brk: then(webhook, egress(strings.Replace(proxyTLS, "clientCert: "+conf+"client.crt, ", "", 1))),
		id: "flag-conflict", path: auth, field: tcp0 + "tlsConfig"},
	{name: "konnectivity without TLS", brk: egress("egressSelections:\n- name: cluster\n  connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: \"http://10.0.0.9:8131\"}}}\n"),
		id: "plain-http", path: auth, field: tcp0 + "url"},
	{name: "others may read the keys that encrypt Secrets", brk: then(
		configured("encryption-provider-config", "EncryptionConfiguration", "resources:\n- {resources: [secrets], providers: [{aescbc: {keys: [{name: k, secret: c2VjcmV0}]}}]}\n"),
		func(c *testpki.Cluster) { c.Chmod("cp1", conf+"file.yaml", 0o644) }), id: "key-permissions", path: auth},

	// Tokens.
	{name: "tokens are signed elsewhere and here", brk: func(c *testpki.Cluster) {
		flags(c, "kube-apiserver", "--service-account-signing-endpoint=/run/signer.sock")
	},
		id: "flag-conflict", path: apiserver, field: "--service-account-signing-key-file"},

	// Certificates by name.
	{name: "a certificate more lacks the name that it is given for", brk: then(sni, func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", ":api.public.test", ":api.public.test,other.public.test")
	}), id: "san-missing", path: pki + "public.crt", links: []int{4}},
	{name: "a certificate more has expired", brk: func(c *testpki.Cluster) { sniUntil(c, testpki.Made.Add(time.Hour)) }, id: "cert-expired", path: pki + "public.crt", links: []int{4}},
	{name: "a certificate of another authority is given for the name that pods dial", brk: then(sni, func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", ":api.public.test", ":kubernetes.default.svc")
	}), id: "authority-unknown", path: pki + "public.crt"},

	// The kubelet.
	{name: "anonymous access by a drop-in", brk: func(c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: false}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}")
		dropIns(c, map[string]string{"10-a.conf": "authentication: {anonymous: {enabled: true}}", "20-b.conf": "port: 10250"})
	}, id: "anonymous-on", path: "/etc/kubelet.d/10-a.conf", field: "authentication.anonymous.enabled"},
	{name: "a drop-in has no kind", brk: func(c *testpki.Cluster) {
		dropIns(c, nil)
		c.Write("cp1", "/etc/kubelet.d/a.conf", []byte("readOnlyPort: 0\n"))
	}, id: "flag-conflict", path: "/etc/kubelet.d/a.conf", field: "kind"},
	{name: "a field of a drop-in is of another type", brk: func(c *testpki.Cluster) { dropIns(c, map[string]string{"a.conf": "authorization: {mode: [x]}"}) },
		id: "flag-conflict", path: "/etc/kubelet.d/a.conf", field: "authorization.mode"},
	{name: "a flag opens what the configuration closes", brk: func(c *testpki.Cluster) {
		kubelet(c, "readOnlyPort: 0")
		c.Write("cp1", "/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\"--read-only-port=10255\"\n"))
	}, id: "authorization-open", path: "/var/lib/kubelet/kubeadm-flags.env", field: "--read-only-port"},
	{name: "the certificate that the cluster signed for a kubelet has expired", kind: testpki.KubeletCA, node: "w1", brk: func(c *testpki.Cluster) {
		c.Copy("w1", "/var/lib/kubelet/pki/kubelet.crt", "cp1", "pki/kubelet.crt")
		c.Reissue("cp1", "kubelet", "kubelet-ca", past)
		c.Copy("cp1", "pki/kubelet.crt", "w1", "/var/lib/kubelet/pki/kubelet.crt")
		c.Remove("cp1", "pki/kubelet.crt")
		servingCurrent(c)
	}, id: "cert-expired", path: "/var/lib/kubelet/pki/kubelet-server-current.pem"},

	// etcd and the scheduler.
	{name: "etcd verifies no client, by its file", brk: func(c *testpki.Cluster) {
		etcdFile(c, strings.Replace(etcdConfig, "trusted-ca-file: /etc/kubernetes/pki/etcd/ca.crt, client-cert-auth: true", "client-cert-auth: false", 1))
	}, id: "client-auth-off", path: conf + "etcd.yaml", field: "client-transport-security.trusted-ca-file"},
	{name: "etcd speaks to its peers without TLS, by its file", brk: func(c *testpki.Cluster) {
		etcdFile(c, strings.Replace(etcdConfig, "listen-peer-urls: https", "listen-peer-urls: http", 1))
	}, id: "plain-http", path: conf + "etcd.yaml", field: "listen-peer-urls"},
	{name: "etcd's file is no YAML", brk: func(c *testpki.Cluster) { etcdFile(c, "name: [") }, id: "flag-conflict", path: conf + "etcd.yaml"},
	{name: "etcd's file names another key", brk: func(c *testpki.Cluster) {
		etcdFile(c, strings.Replace(etcdConfig, "etcd/server.key", "etcd/peer.key", 1))
	}, id: "key-mismatch", path: conf + "etcd.yaml", field: "client-transport-security.key-file"},
	{name: "the scheduler's file names a kubeconfig that is missing", brk: func(c *testpki.Cluster) {
		configuredWell["the scheduler by its configuration file"].do(c)
		c.Remove("cp1", "scheduler.conf")
	}, id: "file-missing", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},

	// PEM blocks with headers.
	{name: "the cluster's authority stands in a block with headers", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/ca.crt", headers(c.Read("cp1", "pki/ca.crt")))
	}, id: "bundle-empty", path: pki + "ca.crt"},
	{name: "one of two authorities of clients stands in a block with headers", kind: testpki.KubeletCA, node: "cp1", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/client-ca.crt", headers(c.Read("cp1", "pki/client-ca.crt")))
	}, id: "authority-unknown", path: pki + "client-ca.crt"},
	{name: "the authority of a webhook stands in a block with headers", brk: then(webhook, authorization(hookAuth), func(c *testpki.Cluster) {
		c.Write("cp1", conf+"webhook-ca.crt", headers(c.Read("cp1", conf+"webhook-ca.crt")))
	}), id: "bundle-empty", path: conf + "webhook-ca.crt", links: []int{14}},

	// The ports for scrapers.
	{name: "the pair of the controller-manager's own port is none", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/apiserver.crt", "cp1", "pki/kcm.crt")
		c.NewKey("cp1", "pki/kcm.key", issue.ECDSAP256)
		flags(c, "kube-controller-manager", "--tls-cert-file="+pki+"kcm.crt", "--tls-private-key-file="+pki+"kcm.key")
	}, id: "key-mismatch", path: pki + "kcm.key", links: []int{19}},
}

// past ends a certificate before clusters are looked at.
var past = until(testpki.Made.Add(time.Hour))

// clientExpired gives webhooks a client certificate that has ended.
func clientExpired(c *testpki.Cluster) {
	c.Copy("cp1", "pki/apiserver-kubelet-client.crt", "cp1", "pki/hook.crt")
	c.Reissue("cp1", "hook", "ca", past)
	c.Copy("cp1", "pki/hook.crt", "cp1", conf+"client.crt")
	c.Remove("cp1", "pki/hook.crt")
}

func TestOneFaultOfAConfigurationIsOneFinding(t *testing.T) {
	for _, m := range misconfigured {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			kind := m.kind
			if kind == "" {
				kind = testpki.Single
			}
			c := testpki.New(t, kind)
			r := m.verify(t, c)
			got := weighty(r)
			if len(got) != 1 {
				t.Fatalf("want the one finding %s at %s, got:\n%s", m.id, m.path, describe(got))
			}
			f := got[0]
			if f.ID != m.id || f.Path != m.path || m.node != "" && f.Node != m.node || m.field != "" && f.Field != m.field || f.Cause == "" || f.Fix == "" {
				t.Errorf("want %s at %s %s %s, got:\n%s", m.id, m.node, m.path, m.field, describe(got))
			}
			if m.links != nil && !slices.Equal(f.Links, m.links) {
				t.Errorf("links: want %v, got %v", m.links, f.Links)
			}
			explained(t, r)
		})
	}
}
