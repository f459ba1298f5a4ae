//go:build linux

package lab_test

import (
	"cmp"
	"fmt"
	"maps"
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
	{"an image repository of one's own", kubeadmConfig("v1beta4", plainInit, `encryptionAlgorithm: ECDSA-P256
imageRepository: images.example.test/k8s`)},
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
	for _, c := range equivalenceCases {
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

// The comparison itself: two runs of kubeadm are the same, and a changed byte
// of what matters is seen.
func TestComparisonSeesNothingBetweenTwoRunsOfKubeadm(t *testing.T) {
	for _, c := range equivalenceCases {
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
