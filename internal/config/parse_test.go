package config_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
)

var host = config.Host{
	Name:    func() (string, error) { return "Machine", nil },
	Address: func() (netip.Addr, error) { return netip.MustParseAddr("192.0.2.7"), nil },
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty(),
}

func defaults(change func(*catalog.Cluster)) *catalog.Cluster {
	c := &catalog.Cluster{
		Name: "kubernetes", KubernetesVersion: "v1.37.2", CertificatesDir: "/etc/kubernetes/pki", ServiceSubnet: "10.96.0.0/12",
		DNSDomain: "cluster.local", Shape: catalog.Separate, Algorithm: "RSA-2048", Validity: 8760 * time.Hour, CAValidity: 87600 * time.Hour,
		ControlPlanes:   []catalog.ControlPlane{{Name: "machine", Address: netip.MustParseAddr("192.0.2.7"), BindPort: 6443}},
		ImageRepository: "registry.k8s.io", EtcdDataDir: "/var/lib/etcd", AlgorithmAssumed: true, ValidityAssumed: true,
	}
	change(c)
	return c
}

func TestConfigurationsThatAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want func(*catalog.Cluster)
	}{
		"kubeadm's with nothing but defaults": {"apiVersion: kubeadm.k8s.io/v1\nkind: InitConfiguration\n", func(*catalog.Cluster) {}},
		"kubeadm's with all that matters": {`
# a comment
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 24h0m0s, usages: [signing, authentication], groups: ["system:bootstrappers:kubeadm:default-node-token"]}]
nodeRegistration: {name: CP1, criSocket: "unix:///run/c.sock", taints: [], imagePullPolicy: IfNotPresent, imagePullSerial: true, kubeletExtraArgs: [{name: v, value: "4"}]}
localAPIEndpoint: {advertiseAddress: "fd00::1", bindPort: 7443}
timeouts: {discovery: 5m0s, controlPlaneComponentHealthCheck: 5m0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: blue
kubernetesVersion: 1.36.1
controlPlaneEndpoint: "[fd00::9]:6443"
certificatesDir: /srv/pki/
networking: {serviceSubnet: "fd01::/112,10.96.0.0/16", podSubnet: 10.244.0.0/16, dnsDomain: blue.local}
apiServer: {certSANs: [A.example.test, "*.b.example.test", 10.0.0.9], extraArgs: [{name: v, value: "2"}], extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true, pathType: File}], extraEnvs: [{name: A, value: b}]}
controllerManager: {}
scheduler: {}
dns: {disabled: true}
proxy: {}
featureGates: {RootlessControlPlane: false}
encryptionAlgorithm: ECDSA-P384
certificateValidityPeriod: 100h
caCertificateValidityPeriod: 200h
imageRepository: images.example.test/k8s
etcd: {local: {dataDir: /srv/etcd, imageTag: 3.7.9-0, serverCertSANs: [s.example.test], peerCertSANs: [p.example.test]}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
anything: goes
`, func(c *catalog.Cluster) {
			c.Name, c.KubernetesVersion, c.ControlPlaneEndpoint, c.CertificatesDir = "blue", "v1.36.1", "[fd00::9]:6443", "/srv/pki"
			c.ServiceSubnet, c.PodSubnet, c.DNSDomain = "fd01::/112,10.96.0.0/16", "10.244.0.0/16", "blue.local"
			c.CertSANs = []string{"a.example.test", "*.b.example.test", "10.0.0.9"}
			c.StartupTimeout = 5 * time.Minute
			c.Algorithm, c.Validity, c.CAValidity = "ECDSA-P384", 100*time.Hour, 200*time.Hour
			c.AlgorithmAssumed, c.ValidityAssumed = false, false
			c.ImageRepository, c.EtcdDataDir, c.EtcdImage = "images.example.test/k8s", "/srv/etcd", "images.example.test/k8s/etcd:3.7.9-0"
			c.ControlPlanes = []catalog.ControlPlane{{Name: "cp1", Address: netip.MustParseAddr("fd00::1"), BindPort: 7443,
				EtcdServerSANs: []string{"s.example.test"}, EtcdPeerSANs: []string{"p.example.test"}}}
			c.ExtraArgs = map[string][]catalog.Arg{"kube-apiserver": {{Name: "v", Value: "2"}}, "kubelet": {{Name: "v", Value: "4"}}}
			c.Pods = map[string]catalog.PodExtras{"kube-apiserver": {
				Volumes: []catalog.HostPath{{Name: "a", HostPath: "/a", MountPath: "/b", ReadOnly: true, Type: "File"}},
				Env:     []catalog.EnvVar{{Name: "A", Value: "b"}},
			}}
		}},
		"kubeadm's v1 with a merge method and external etcd": {`
apiVersion: kubeadm.k8s.io/v1
kind: ClusterConfiguration
controllerManager: {extraArgs: [{name: controllers, value: ",-nodeipam", mergeMethod: append}]}
etcd: {external: {endpoints: ["https://10.0.0.31:2379"], httpEndpoints: ["http://10.0.0.31:2381"], caFile: /e/ca.crt, certFile: /e/c.crt, keyFile: /e/c.key}}
`, func(c *catalog.Cluster) {
			c.ExtraArgs = map[string][]catalog.Arg{"kube-controller-manager": {{Name: "controllers", Value: ",-nodeipam", Merge: "append"}}}
			c.ExternalEtcd = &catalog.ExternalEtcd{Endpoints: []string{"https://10.0.0.31:2379"}, CAFile: "/e/ca.crt", CertFile: "/e/c.crt", KeyFile: "/e/c.key"}
		}},
		"kubepki's own": {`
apiVersion: kubepki.dev/v1alpha1
kind: Cluster
controlPlaneEndpoint: api.example.test
authorities: {shape: intermediate, kubelet: true}
encryptionAlgorithm: ed25519
controlPlanes:
- {name: cp1, address: 10.0.0.11, certSANs: [One.example.test]}
- {name: cp2, address: 127.0.0.2, bindPort: 7443}
workers: [{name: w1}, {name: w2, address: 10.0.0.22}]
etcd: {members: [{name: e1, address: 10.0.0.31, peerCertSANs: [p.example.test]}]}
users: [{name: jane, groups: [dev], validity: 720h}, {name: "ann@example.test"}]
kubeProxy: true
`, func(c *catalog.Cluster) {
			c.ControlPlaneEndpoint, c.Shape, c.KubeletAuthority, c.Algorithm, c.KubeProxy = "api.example.test", catalog.Intermediate, true, "Ed25519", true
			c.AlgorithmAssumed = false
			c.ControlPlanes = []catalog.ControlPlane{
				{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11"), BindPort: 6443, CertSANs: []string{"one.example.test"}},
				{Name: "cp2", Address: netip.MustParseAddr("127.0.0.2"), BindPort: 7443},
			}
			c.Workers = []catalog.Worker{{Name: "w1"}, {Name: "w2", Address: netip.MustParseAddr("10.0.0.22")}}
			c.EtcdMembers = []catalog.EtcdMember{{Name: "e1", Address: netip.MustParseAddr("10.0.0.31"), PeerSANs: []string{"p.example.test"}}}
			c.Users = []catalog.User{{Name: "jane", Groups: []string{"dev"}, Validity: 720 * time.Hour}, {Name: "ann@example.test"}}
		}},
		"kubepki's own with etcd on the control plane": {ownHead +
			"controlPlanes: [{name: a, address: 10.0.0.1, etcd: {serverCertSANs: [s.example.test], peerCertSANs: [p.example.test]}}]\n", func(c *catalog.Cluster) {
			c.ControlPlanes = []catalog.ControlPlane{{Name: "a", Address: netip.MustParseAddr("10.0.0.1"), BindPort: 6443,
				EtcdServerSANs: []string{"s.example.test"}, EtcdPeerSANs: []string{"p.example.test"}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Parse("f.yaml", []byte(c.text), host)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(defaults(c.want), got, compare); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}

const (
	clusterHead = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
	initHead    = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n"
	ownHead     = "apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\n"
	oneNode     = ownHead + "controlPlanes: [{name: a, address: 10.0.0.1}]\n"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "f.yaml: holds neither",
		"# nothing\n":                  "f.yaml: holds neither",
		"a: [":                         "f.yaml: is not YAML (line 1)",
		"- a\n":                        "f.yaml: is a list, wanted is a mapping",
		"kind: Cluster\n":              "apiVersion, kind: are not both set",
		strings.Repeat("#", 1<<20+1):   "f.yaml: larger than 1 MiB",
		clusterHead + "foo: 1\n":       "foo: is not a field of this configuration",
		clusterHead + "ClusterName: x": "ClusterName: is not a field",
		clusterHead + "networking: {dnsDomain: [a]}\n":                                     "networking.dnsDomain: is a list, wanted is a text",
		clusterHead + "networking: x\n":                                                    "networking: is a text, wanted is a mapping",
		clusterHead + "apiServer: {certSANs: a}\n":                                         "apiServer.certSANs: is a text, wanted is a list",
		clusterHead + "clusterName: a\nclusterName: b\n":                                   "clusterName: is given twice (line 4)",
		clusterHead + "---\n" + clusterHead:                                                "two documents of kind ClusterConfiguration",
		clusterHead + "---\n" + oneNode:                                                    "both kubeadm's configuration and a Cluster",
		oneNode + "---\n" + oneNode:                                                        "two documents of kind Cluster",
		initHead + "---\n" + strings.Replace(clusterHead, "v1beta4", "v1", 1):              "the documents are of kubeadm.k8s.io/v1beta4 and of kubeadm.k8s.io/v1",
		"apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\n":                    "kubeadm.k8s.io/v1beta3 is not read",
		"apiVersion: kubeadm.k8s.io/v1\nkind: JoinConfiguration\n":                         "JoinConfiguration says nothing about what init makes",
		"apiVersion: v1\nkind: Pod\n":                                                      "a Pod of v1 is not read here",
		initHead + "localAPIEndpoint: {advertiseAddress: 1.2.3}\n":                         `localAPIEndpoint.advertiseAddress: "1.2.3" is not an IP address`,
		initHead + "localAPIEndpoint: {advertiseAddress: 0.0.0.0}\n":                       "cannot be the address of a node",
		initHead + "localAPIEndpoint: {advertiseAddress: 224.0.0.1}\n":                     "cannot be the address of a node",
		initHead + "localAPIEndpoint: {advertiseAddress: \"fe80::1%eth0\"}\n":              "is not an IP address",
		initHead + "localAPIEndpoint: {bindPort: 70000}\n":                                 "localAPIEndpoint.bindPort: 70000 is not between",
		initHead + "localAPIEndpoint: {bindPort: 5000000000}\n":                            "localAPIEndpoint.bindPort: is a number out of range",
		initHead + "nodeRegistration: {name: a_b}\n":                                       `nodeRegistration.name: "a_b" is not a node name`,
		clusterHead + "controlPlaneEndpoint: \"a b\"\n":                                    "controlPlaneEndpoint: ",
		clusterHead + "controlPlaneEndpoint: a:0\n":                                        "the port is not between",
		clusterHead + "controlPlaneEndpoint: \"https://a\"\n":                              "controlPlaneEndpoint: ",
		clusterHead + "certificatesDir: pki\n":                                             `certificatesDir: "pki" is not an absolute path`,
		clusterHead + "networking: {serviceSubnet: 10.0.0.0/8}\n":                          "is too large: its mask must be at least /12",
		clusterHead + "networking: {serviceSubnet: 10.0.0.0/29}\n":                         "has 8 addresses, at least 10 are needed",
		clusterHead + "networking: {serviceSubnet: \"10.0.0.0/16,10.1.0.0/16\"}\n":         "neither one subnet nor one of IPv4 and one of IPv6",
		clusterHead + "networking: {podSubnet: ten}\n":                                     `networking.podSubnet: "ten" is not a subnet`,
		clusterHead + "networking: {dnsDomain: A.b}\n":                                     "networking.dnsDomain: ",
		clusterHead + "apiServer: {certSANs: [a, \"a*\"]}\n":                               "apiServer.certSANs[1]: ",
		clusterHead + "etcd: {local: {serverCertSANs: [\"-\"]}}\n":                         "etcd.local.serverCertSANs[0]: ",
		clusterHead + "etcd: {local: {}, external: {}}\n":                                  "etcd: local and external are both set",
		clusterHead + "etcd: {external: {endpoints: []}}\n":                                "etcd.external.endpoints: is empty",
		clusterHead + "etcd: {external: {endpoints: [a]}}\n":                               "etcd.external.endpoints[0]: ",
		clusterHead + "etcd: {external: {endpoints: [\"https://a\"], keyFile: /k}}\n":      "certFile and keyFile belong together",
		clusterHead + "etcd: {external: {endpoints: [\"http://a\"], caFile: /c}}\n":        "is without TLS, while caFile is set",
		clusterHead + "etcd: {external: {endpoints: [\"https://a\"], caFile: c}}\n":        `etcd.external.caFile: "c" is not an absolute path`,
		clusterHead + "encryptionAlgorithm: DSA\n":                                         "encryptionAlgorithm: unknown key algorithm",
		clusterHead + "certificateValidityPeriod: 1y\n":                                    `certificateValidityPeriod: "1y" is not a duration`,
		clusterHead + "certificateValidityPeriod: 0h\n":                                    "is not more than nothing",
		clusterHead + "caCertificateValidityPeriod: 1h\n":                                  "caCertificateValidityPeriod: 1h0m0s is shorter",
		clusterHead + "kubernetesVersion: stable-1\n":                                      "kubernetesVersion: ",
		clusterHead + "scheduler: {extraArgs: [{value: a}]}\n":                             "scheduler.extraArgs[0].name: is not set",
		clusterHead + "scheduler: {extraArgs: [{name: a, value: b, mergeMethod: append}]}": "is not a field of kubeadm.k8s.io/v1beta4",
		ownHead: "controlPlanes: is empty",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1}, {address: 10.0.0.2}]\n":          "controlPlanes[1].name: is not set",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1}, {name: b}]\n":                    "controlPlanes[1].address: is not set",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1}, {name: A, address: 10.0.0.2}]\n": `controlPlanes[1].name: "a" is also that of controlPlanes[0].name`,
		oneNode + "workers: [{name: a}]\n":                                                        `workers[0].name: "a" is also that of`,
		oneNode + "workers: [{name: b, address: 10.0.0.1}]\n":                                     "workers[0].address: 10.0.0.1 is also that of",
		oneNode + "workers: [{name: authorities}]\n":                                              "is the name of a folder beside the nodes",
		oneNode + "etcd: {members: [{name: e}]}\n":                                                "etcd.members[0].address: is not set",
		oneNode + "etcd: {members: [{name: e, address: 10.0.0.2}], external: {}}\n":               "etcd: members and external are both set",
		oneNode + "authorities: {shape: round}\n":                                                 "authorities.shape: ",
		ownHead + "controlPlanes: [{address: 10.0.0.1}]\n":                                        "controlPlanes[0].name: is not set",
		ownHead + "controlPlanes: [{name: a}]\n":                                                  "controlPlanes[0].address: is not set",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1, etcd: {serverCertSANs: [b]}}]\netcd: {members: [{name: e, address: 10.0.0.2}]}\n":   "controlPlanes[0].etcd: has no effect beside etcd.members",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1, etcd: {peerCertSANs: [b]}}]\netcd: {external: {endpoints: [\"https://a:2379\"]}}\n": "controlPlanes[0].etcd: has no effect beside etcd.external",
		oneNode + "users: [{name: a, groups: [b, \"\"]}]\n":                                        `users[0].groups[1]: "" is empty`,
		oneNode + "users: [{name: a, validity: 999999h}]\n":                                        "users[0].validity: 999999h0m0s is longer than that of authorities",
		oneNode + "apiServer: {extraArgs: [a]}\n":                                                  "f.yaml: apiServer.extraArgs: is a text, wanted is a mapping",
		oneNode + "etcd: {members: [{name: [a]}]}\n":                                               "f.yaml: etcd.members.name: is a list, wanted is a text",
		oneNode + "controlPlaneEndpoint: \"[fe80::1%eth0]:6443\"\n":                                "controlPlaneEndpoint: ",
		clusterHead + "apiServer: {certSANs: [\"fe80::1%eth0\"]}\n":                                `apiServer.certSANs[0]: "fe80::1%eth0" is neither`,
		clusterHead + "apiServer: {extraVolumes: [a]}\n":                                           "f.yaml: apiServer.extraVolumes: is a text, wanted is a mapping",
		initHead + "nodeRegistration: {name: " + strings.Repeat("a", 64) + "}\n":                   "each part between dots at most 63 long",
		oneNode + "users: [{name: a}, {name: a}]\n":                                                `users[1].name: "a" is there twice`,
		oneNode + "users: [{name: ../a}]\n":                                                        "users[0].name: ",
		oneNode + "users: [{name: a, validity: -1h}]\n":                                            "users[0].validity: ",
		oneNode + "users: [{name: a, valid: 1h}]\n":                                                "users[0].valid: is not a field",
		oneNode + "scheduler: {extraArgs: [{name: a, value: b, mergeMethod: mix}]}\n":              "is neither append nor prepend",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1, certSANs: [\"*\"]}]\n":             "controlPlanes[0].certSANs[0]: ",
		ownHead + "controlPlanes: [{name: a, address: 10.0.0.1, etcd: {peerCertSANs: [\"_\"]}}]\n": "controlPlanes[0].etcd.peerCertSANs[0]: ",
	} {
		_, err := config.Parse("f.yaml", []byte(text), host)
		var e *config.Error
		if !errors.As(err, &e) {
			t.Errorf("%.80q: got error %v, want a *config.Error", text, err)
			continue
		}
		message := err.Error()
		if !strings.Contains(message, want) || !strings.HasPrefix(message, "f.yaml: ") || strings.Contains(message, "\n") || e.Hint() == "" {
			t.Errorf("%.80q is refused with\n  %s (hint %q)\nwant\n  %s", text, message, e.Hint(), want)
		}
	}
}

func TestCheckNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a.example.test": true, "*.example.test": true, "10.0.0.1": true, "fe80::1": true,
		"fe80::1%eth0": false, "": false, "a b": false, "a.*.test": false,
	} {
		if err := config.CheckNames("--name", []string{name}); ok != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestErrorsDoNotShowTokens(t *testing.T) {
	for _, text := range []string{
		initHead + "bootstrapTokens: [{token: abcdef.secretsecret, foo: 1}]\n",
		initHead + "bootstrapTokens: [{token: [abcdef.secretsecret]}]\n",
		initHead + "bootstrapTokens: [{token: abcdef.secretsecret\n",
		initHead + "certificateKey: {abcdef.secretsecret: a}\n",
		initHead + "bootstrapTokens:\n- token: abcdef.secretsecret\n token: b\n",
	} {
		_, err := config.Parse("f.yaml", []byte(text), host)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v, want one without the token", text, err)
		}
	}
}

// TestDocumentedExample reads the example of docs/configuration.md, which shows
// every field with its default.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(text), "```yaml\n")
	example, _, end := strings.Cut(example, "```")
	if !ok || !end {
		t.Fatal("docs/configuration.md has no example")
	}
	got, err := config.Parse("example", []byte(example), config.Host{})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults(func(c *catalog.Cluster) {
		c.ControlPlanes[0].Name, c.ControlPlanes[0].Address = "cp1", netip.MustParseAddr("10.0.0.11")
		c.Workers = []catalog.Worker{{Name: "w1", Address: netip.MustParseAddr("10.0.0.21")}}
		c.EtcdImage, c.StartupTimeout = "registry.k8s.io/etcd:3.7.0-0", 4*time.Minute
		c.AlgorithmAssumed, c.ValidityAssumed = false, false
	})
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("defaults -, documented +:\n%s", d)
	}
}

func TestHostIsAskedOnlyForWhatIsOpen(t *testing.T) {
	silent := config.Host{
		Name:    func() (string, error) { return "", errors.New("no name") },
		Address: func() (netip.Addr, error) { return netip.Addr{}, errors.New("no address") },
	}
	if _, err := config.Parse("f", []byte(initHead+"nodeRegistration: {name: a}\nlocalAPIEndpoint: {advertiseAddress: 10.0.0.1}"), silent); err != nil {
		t.Error(err)
	}
	for field, text := range map[string]string{
		"nodeRegistration.name":             initHead + "localAPIEndpoint: {advertiseAddress: 10.0.0.1}",
		"localAPIEndpoint.advertiseAddress": initHead + "nodeRegistration: {name: a}",
	} {
		_, err := config.Parse("f", []byte(text), silent)
		if err == nil || !strings.HasPrefix(err.Error(), "f: "+field+": is not set") {
			t.Errorf("got %v, want %s named", err, field)
		}
	}
}

func TestCompleteNamesFlags(t *testing.T) {
	for want, c := range map[string]*catalog.Cluster{
		"--service-cidr: ":             {ServiceSubnet: "x"},
		"--control-plane-endpoint: ":   {ControlPlaneEndpoint: "a b"},
		"--pod-network-cidr: ":         {PodSubnet: "x"},
		"--key-algorithm: ":            {Algorithm: "x"},
		"--authorities: ":              {Shape: "x"},
		"--cert-dir: ":                 {CertificatesDir: "x"},
		"--kubernetes-version: ":       {KubernetesVersion: "x"},
		"--service-dns-domain: ":       {DNSDomain: "X"},
		"--validity: ":                 {Validity: -1},
		"--apiserver-cert-extra-sans[": {CertSANs: []string{"_"}},
	} {
		if c.Validity == 0 {
			c.Validity, c.CAValidity = time.Hour, time.Hour
		}
		_, err := config.Complete(c, host)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}
