//go:build linux

package lab_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// allowed are the only differences between kubeadm's files and ours. Each
// stands in docs/kubeadm-differences.md under the same name.
var allowed = []struct {
	name  string
	fact  *regexp.Regexp // of which facts
	holds func(d difference, ours facts) bool
}{
	{
		// RFC 5480 section 3 and RFC 8410 section 5: only keys that can
		// encipher may have keyEncipherment; kubeadm sets it on all.
		name: "keyEncipherment only on RSA keys",
		fact: regexp.MustCompile(`#(extension 2\.5\.29\.15|usages)$`),
		holds: func(d difference, ours facts) bool {
			key := ours[strings.TrimSuffix(d.fact, d.field())+"key"]
			return !strings.HasPrefix(key, "RSA") && withoutEncipherment(d.theirs) == d.ours
		},
	},
}

// withoutEncipherment takes bit 2 away from a key usage, as describe shows it.
func withoutEncipherment(usage string) string {
	if usage == "030205a0" { // digitalSignature, keyEncipherment
		return "03020780" // digitalSignature
	}
	if usage == "030202a4" { // digitalSignature, keyEncipherment, keyCertSign
		return "03020284"
	}
	rest, ok := strings.CutPrefix(usage, "key 0b")
	if !ok {
		return usage
	}
	bits, tail, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseUint(bits, 2, 16)
	if err != nil {
		return usage
	}
	return fmt.Sprintf("key %#b,%s", n&^4, tail)
}

// difference is one fact that is not the same.
type difference struct{ fact, theirs, ours string }

// field is the last part of the fact's name.
func (d difference) field() string { return d.fact[strings.LastIndex(d.fact, "#")+1:] }

func (d difference) String() string {
	return fmt.Sprintf("%s\n\tkubeadm: %s\n\tkubepki: %s", d.fact, cmp.Or(d.theirs, "(none)"), cmp.Or(d.ours, "(none)"))
}

// compare lists what differs, in order. Times may differ by a minute.
func compare(theirs, ours facts) []difference {
	all := maps.Clone(theirs)
	maps.Copy(all, ours)
	var found []difference
	for _, fact := range slices.Sorted(maps.Keys(all)) {
		d := difference{fact, theirs[fact], ours[fact]}
		if d.theirs == d.ours || (isTime(d) && near(d.theirs, d.ours)) {
			continue
		}
		found = append(found, d)
	}
	return found
}

func isTime(d difference) bool { return d.field() == "notBefore" || d.field() == "notAfter" }

func near(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return errX == nil && errY == nil && max(x-y, y-x) <= int64(time.Minute/time.Second)
}

// unexplained leaves out the differences that are allowed.
func unexplained(found []difference, ours facts) []difference {
	return slices.DeleteFunc(found, func(d difference) bool {
		for _, a := range allowed {
			if a.fact.MatchString(d.fact) && a.holds(d, ours) {
				return true
			}
		}
		return false
	})
}

// kubeadmConfig makes a configuration: lines for the InitConfiguration, lines
// for the ClusterConfiguration.
func kubeadmConfig(version, init, cluster string) string {
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/%[1]s
kind: InitConfiguration
%[2]s
---
apiVersion: kubeadm.k8s.io/%[1]s
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
%[3]s
`, version, init, cluster)
}

const plainInit = `nodeRegistration: {name: cp1}
localAPIEndpoint: {advertiseAddress: 10.99.0.11, bindPort: 6443}`

const extraNames = "extra names and addresses, some twice, some wild"

// configOf is the configuration of a case.
func configOf(t *testing.T, name string) string {
	t.Helper()
	for _, c := range equivalenceCases {
		if c.name == name {
			return c.config
		}
	}
	t.Fatalf("no case is called %q", name)
	return ""
}

// equivalenceCases are configurations that kubeadm and kubepki both read.
var equivalenceCases = []struct{ name, config string }{
	{"the defaults", kubeadmConfig("v1beta4", plainInit, "")},
	{"RSA-3072", kubeadmConfig("v1beta4", plainInit, "encryptionAlgorithm: RSA-3072")},
	{"ECDSA-P256", kubeadmConfig("v1beta4", plainInit, "encryptionAlgorithm: ECDSA-P256")},
	{"ECDSA-P384", kubeadmConfig("v1beta4", plainInit, "encryptionAlgorithm: ECDSA-P384")},
	{extraNames, kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
apiServer:
  certSANs: [api.example.test, "*.apps.example.test", 192.0.2.7, "2001:db8::7", api.example.test, 10.99.0.11, cp1, "2001:DB8:0::7"]
etcd:
  local:
    serverCertSANs: [etcd.example.test, 192.0.2.8]
    peerCertSANs: [peer.example.test, "2001:db8::9", localhost]`)},
	{"dual-stack services and pods", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
networking: {serviceSubnet: "10.96.0.0/16,fd00:10:96::/112", podSubnet: "10.244.0.0/16,fd00:10:244::/56"}`)},
	{"IPv6 alone", kubeadmConfig("v1beta4", `nodeRegistration: {name: cp1}
localAPIEndpoint: {advertiseAddress: "fd99::11", bindPort: 6443}`, `encryptionAlgorithm: ECDSA-P256
networking: {serviceSubnet: "fd00:10:96::/112", podSubnet: "fd00:10:244::/56"}`)},
	{"external etcd", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
etcd:
  external:
    endpoints: ["https://10.99.0.31:2379", "https://10.99.0.32:2379"]
    caFile: /etc/kubernetes/pki/etcd/ca.crt
    certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt
    keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key`)},
	{"validity periods of one's own", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
certificateValidityPeriod: 2160h
caCertificateValidityPeriod: 43800h`)},
	{"a control-plane endpoint with a port", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: api.example.test:8443`)},
	{"a control-plane endpoint without a port", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: api.example.test`)},
	{"a control-plane endpoint that is an IPv6 address", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: "[fd99::100]:6443"`)},
	{"a folder, a cluster name, a domain and a port of one's own", kubeadmConfig("v1beta4", `nodeRegistration: {name: cp1.example.test}
localAPIEndpoint: {advertiseAddress: 10.99.0.11, bindPort: 7443}`, `encryptionAlgorithm: ECDSA-P256
certificatesDir: /etc/kubernetes/own/pki
clusterName: blue
networking: {dnsDomain: blue.example.test}
etcd: {local: {dataDir: /var/lib/own-etcd}}`)},
	{"extra arguments of the components", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
apiServer: {extraArgs: [{name: authorization-mode, value: "Node,RBAC,Webhook"}, {name: v, value: "4"}]}
controllerManager: {extraArgs: [{name: bind-address, value: 0.0.0.0}]}
scheduler: {extraArgs: [{name: v, value: "4"}]}
etcd: {local: {extraArgs: [{name: listen-metrics-urls, value: "http://0.0.0.0:2381"}]}}`)},
	{"a node name in capitals with spaces around it", kubeadmConfig("v1beta4", `nodeRegistration: {name: " CP1 "}
localAPIEndpoint: {advertiseAddress: 10.99.0.11}`, `encryptionAlgorithm: ECDSA-P256`)},
	{"services of IPv6 before those of IPv4", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
networking: {serviceSubnet: "fd00:10:96::/112,10.96.0.0/16"}`)},
	{"addresses written in unusual ways", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
apiServer: {certSANs: ["::ffff:192.0.2.1", "192.0.02.9", "0:0:0:0:0:0:0:5"]}
networking: {serviceSubnet: 10.96.0.5/12}`)},
	{"names in capitals", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
apiServer: {certSANs: [API.Example.test, "*.Apps.example.test", KUBERNETES]}`)},
	{"a control-plane endpoint that is a bare IPv6 address", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: "fd99::100"`)},
	{"external etcd without TLS", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
etcd: {external: {endpoints: ["http://10.99.0.31:2379"]}}`)},
	{"external etcd with its files elsewhere", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
etcd: {external: {endpoints: ["https://10.99.0.31:2379"], caFile: /opt/etcd/ca.crt, certFile: /opt/etcd/client.crt, keyFile: /opt/etcd/client.key}}`)},
	{"more volumes, variables and a patience of one's own", kubeadmConfig("v1beta4", plainInit+`
timeouts: {controlPlaneComponentHealthCheck: 8m0s}`, `encryptionAlgorithm: ECDSA-P256
apiServer:
  extraVolumes: [{name: audit, hostPath: /var/log/audit, mountPath: /var/log/audit, pathType: DirectoryOrCreate}]
  extraEnvs: [{name: GODEBUG, value: "http2debug=1"}]
scheduler: {extraEnvs: [{name: TZ, value: UTC}]}
etcd: {local: {imageRepository: images.example.test/etcd, imageTag: 3.6.5-0}}`)},
	{"the Kubernetes version before", strings.Replace(kubeadmConfig("v1beta4", plainInit, "encryptionAlgorithm: ECDSA-P256"), "v1.37.2", "v1.36.1", 1)},
	{"an image repository of one's own", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
imageRepository: images.example.test/k8s`)},
}

// quickCases are the cases without RSA-3072, whose keys take seconds to make:
// for tests to which the kind of key does not matter.
func quickCases() []struct{ name, config string } {
	return slices.DeleteFunc(slices.Clone(equivalenceCases), func(c struct{ name, config string }) bool {
		return strings.Contains(c.config, "RSA-3072")
	})
}

func TestFilesAreThoseOfKubeadm(t *testing.T) {
	for _, c := range equivalenceCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			theirs := describe(t, kubeadmNode(t, c.config), started)
			ours := initFacts(t, c.config)
			for _, d := range unexplained(compare(theirs, ours), ours) {
				t.Error(d)
			}
		})
	}
}

// kubeadm v1.37's phases refuse the version v1 as experimental, although it
// can validate it; what v1 means is known by the same text in v1beta4.
func TestVersionV1OfTheConfigurationMeansWhatV1beta4Means(t *testing.T) {
	for _, c := range quickCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := strings.ReplaceAll(c.config, "kubeadm.k8s.io/v1beta4", "kubeadm.k8s.io/v1")
			file := write(t, filepath.Join(t.TempDir(), "kubeadm.yaml"), config)
			run(t, "kubeadm", "config", "validate", "--allow-experimental-api", "--config="+file)
			for _, d := range compare(initFacts(t, c.config), initFacts(t, config)) {
				t.Error(d)
			}
		})
	}
}

// initFacts describes what kubepki init makes of a configuration.
func initFacts(t *testing.T, config string) facts {
	t.Helper()
	root := t.TempDir()
	started := time.Now()
	initNode(t, config, root)
	return describe(t, root, started)
}

// initNode runs kubepki init for one node.
func initNode(t testing.TB, config, root string, more ...string) output {
	t.Helper()
	file := write(t, filepath.Join(t.TempDir(), "kubeadm.yaml"), config)
	return run(t, "kubepki", append([]string{"init", "--config=" + file, "--root=" + root, "--manifests"}, more...)...)
}

// The folders of certificates that distributions have are mounted where they
// are there.
func TestManifestsMountTheFoldersOfTheMachine(t *testing.T) {
	roots := [2]string{t.TempDir(), t.TempDir()}
	for _, root := range roots {
		for _, dir := range []string{"etc/pki", "etc/ca-certificates", "usr/share/ca-certificates", "usr/local/share/ca-certificates"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	started := time.Now()
	config := configOf(t, "ECDSA-P256")
	kubeadmFiles(t, roots[0], config)
	initNode(t, config, roots[1])
	theirs, ours := describe(t, roots[0], started), describe(t, roots[1], started)
	for _, d := range unexplained(compare(theirs, ours), ours) {
		t.Error(d)
	}
}

// refusedCases are configurations that kubeadm refuses, and so must kubepki.
var refusedCases = []struct{ name, init, cluster string }{
	{"a node name with an underscore", strings.Replace(plainInit, "cp1", "cp_1", 1), ""},
	{"an advertise address that is a name", strings.Replace(plainInit, "10.99.0.11", "cp1.example.test", 1), ""},
	{"an advertise address for many", strings.Replace(plainInit, "10.99.0.11", "224.0.0.1", 1), ""},
	{"a port that is none", strings.Replace(plainInit, "6443", "70000", 1), ""},
	{"an endpoint that is a URL", plainInit, "controlPlaneEndpoint: https://api.example.test:6443"},
	{"an endpoint with a port that is none", plainInit, "controlPlaneEndpoint: api.example.test:99999"},
	{"an endpoint with a wildcard", plainInit, `controlPlaneEndpoint: "*.example.test"`},
	{"a name with a space", plainInit, `apiServer: {certSANs: ["a b"]}`},
	{"an empty name", plainInit, `apiServer: {certSANs: [""]}`},
	{"a wildcard in the middle", plainInit, `apiServer: {certSANs: ["a.*.example.test"]}`},
	{"an address with a zone", plainInit, `apiServer: {certSANs: ["fe80::1%eth0"]}`},
	{"a URI among the names", plainInit, `apiServer: {certSANs: ["spiffe://example.test/x"]}`},
	{"a name of etcd with a space", plainInit, `etcd: {local: {serverCertSANs: ["a b"]}}`},
	{"a service subnet that is none", plainInit, "networking: {serviceSubnet: everything}"},
	{"a service subnet too small for its services", plainInit, "networking: {serviceSubnet: 10.96.0.0/30}"},
	{"a service subnet too large", plainInit, `networking: {serviceSubnet: "fd00::/64"}`},
	{"two service subnets of one family", plainInit, `networking: {serviceSubnet: "10.96.0.0/12,10.128.0.0/12"}`},
	{"a domain with a space", plainInit, `networking: {dnsDomain: "a b"}`},
	{"a relative folder", plainInit, "certificatesDir: pki"},
	{"an algorithm that nobody knows", plainInit, "encryptionAlgorithm: DSA"},
	{"a validity in days", plainInit, "certificateValidityPeriod: 365d"},
	{"local and external etcd", plainInit, `etcd: {local: {dataDir: /x}, external: {endpoints: ["https://10.0.0.1:2379"]}}`},
	{"external etcd without an endpoint", plainInit, "etcd: {external: {endpoints: []}}"},
	{"a client certificate of etcd without its key", plainInit, `etcd: {external: {endpoints: ["https://10.0.0.1:2379"], certFile: /a}}`},
}

func TestWhatKubeadmRefusesIsRefused(t *testing.T) {
	for _, c := range refusedCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := kubeadmConfig("v1beta4", c.init, c.cluster)
			root := t.TempDir()
			write(t, filepath.Join(root, "kubeadm.yaml"), config)
			if _, err := try(t, "kubeadm", "--rootfs="+root, "--config=/kubeadm.yaml", "init", "phase", "certs", "all"); err == nil {
				t.Error("kubeadm does not refuse it")
			}
			root = t.TempDir()
			file := write(t, filepath.Join(t.TempDir(), "kubeadm.yaml"), config)
			out, err := try(t, "kubepki", "init", "--config="+file, "--root="+root)
			if err == nil || !strings.HasPrefix(out.stderr, "kubepki: error: "+file+": ") {
				t.Errorf("%v\n%s", err, out.stderr)
			}
			if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
				t.Errorf("something was written: %v, %v", entries, err)
			}
		})
	}
}

// The comparison itself: two runs of kubeadm are the same, and a changed byte
// of what matters is seen.
func TestComparisonSeesNothingBetweenTwoRunsOfKubeadm(t *testing.T) {
	for _, c := range quickCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			one := describe(t, kubeadmNode(t, c.config), started)
			started = time.Now()
			two := describe(t, kubeadmNode(t, c.config), started)
			if len(one) < 300 {
				t.Errorf("only %d facts were found", len(one))
			}
			for _, d := range compare(one, two) {
				t.Error(d)
			}
		})
	}
}

func TestComparisonSeesWhatDiffers(t *testing.T) {
	base := describe(t, kubeadmNode(t, configOf(t, "ECDSA-P256")), time.Now())
	other := describe(t, kubeadmNode(t, configOf(t, extraNames)), time.Now())
	seen := map[string]bool{}
	for _, d := range compare(base, other) {
		seen[d.fact] = true
	}
	for _, want := range []string{
		"/etc/kubernetes/pki/apiserver.crt#SANs",
		"/etc/kubernetes/pki/apiserver.crt#extension 2.5.29.17",
		"/etc/kubernetes/pki/etcd/peer.crt#SANs",
		"/etc/kubernetes/pki/etcd/peer.crt#extension 2.5.29.17",
		"/etc/kubernetes/pki/etcd/server.crt#SANs",
		"/etc/kubernetes/pki/etcd/server.crt#extension 2.5.29.17",
	} {
		if !seen[want] {
			t.Errorf("the difference of %s is not seen", want)
		}
		delete(seen, want)
	}
	for fact := range seen {
		t.Errorf("%s does not differ between these configurations", fact)
	}
}
