package check

import (
	"path"
	"slices"
	"strings"
)

// cis is the version of the CIS Kubernetes Benchmark whose numbers are given, as
// aquasecurity/kube-bench lists them (cfg/cis-1.11).
const cis = "CIS Kubernetes Benchmark v1.11.1: "

// reference is what others say of a finding's fault, where it is that of the rule
// and of the place.
type reference struct {
	rule string
	at   func(f *Finding) bool // nil: any place
	text string                // a control, or OWNER/REPOSITORY#NUMBER
}

// references: each was read, and is about the very fault.
var references = []reference{
	{"key-permissions", keyBelow("/etc/kubernetes/pki/"), cis + "1.1.21"},
	{"key-permissions", fileIs("/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf"), cis + "1.1.13"},
	{"key-permissions", fileIs("/etc/kubernetes/scheduler.conf"), cis + "1.1.15"},
	{"key-permissions", fileIs("/etc/kubernetes/controller-manager.conf"), cis + "1.1.17"},
	{"key-permissions", fileIs("/etc/kubernetes/kube-proxy.conf"), cis + "4.1.3"},
	{"key-permissions", fileIs("/etc/kubernetes/kubelet.conf"), cis + "4.1.5"},
	{"static-token-file", nil, cis + "1.2.2"},
	{"anonymous-on", ofAPIServer, cis + "1.2.1"},
	{"anonymous-on", ofKubelet, cis + "4.2.1"},
	{"authorization-open", ofAPIServer, cis + "1.2.6"},
	{"authorization-open", andAlso(ofKubelet, flagIs("--authorization-mode")), cis + "4.2.2"},
	{"authorization-open", andAlso(ofKubelet, flagIs("--read-only-port")), cis + "4.2.4"},
	{"kubelet-unverified", nil, cis + "1.2.5"},
	{"kubelet-unverified", nil, "kubernetes/kubeadm#1223"},
	{"kubelet-serving-self-signed", nil, "kubernetes/kubeadm#1223"},
	{"client-auth-off", flagIs("--trusted-ca-file"), cis + "2.2"},
	{"client-auth-off", flagIs("--trusted-ca-file"), "etcd-io/etcd#11124"},
	{"client-auth-off", flagIs("--peer-trusted-ca-file"), cis + "2.5"},
	{"client-auth-off", flagIs("--client-ca-file"), cis + "1.2.25"},
	{"flag-conflict", flagIs("--trusted-ca-file", "--peer-trusted-ca-file"), "etcd-io/etcd#11158"},
	{"authority-unknown", flagIs("--client-ca-file"), cis + "1.2.25"},
	{"authority-unknown", flagIs("--etcd-cafile"), cis + "1.2.26"},
	{"root-ca-mismatch", nil, cis + "1.3.5"},
	{"authority-shared", severityIs(Warning), cis + "2.7"},
	{"authority-shared", severityIs(Error), "kubernetes/website#10093"},
	{"requestheader-any-name", nil, "kubernetes/website#10093"},
	{"san-missing", baseIs("apiserver.crt"), "kubernetes/kubeadm#1447"},
	{"bundle-stale", inKubeconfig, "kubernetes/kubeadm#2027"},
	{"cert-expired", fileIs("/etc/kubernetes/kubelet.conf"), "kubernetes/kubeadm#2185"},
	{"signer-not-single", nil, "kubernetes/kubeadm#1350"},
	{"usage-missing", fileIs("/etc/kubernetes/pki/etcd/server.crt"), "etcd-io/etcd#9785"},
	{"sa-key-mismatch", nil, "kubernetes/kubernetes#72026"},
	{"sa-verify-key-missing", nil, "kubernetes/kubernetes#25063"},
	{"sa-issuer-mismatch", nil, "kubernetes/kubernetes#107031"},
	{"sa-issuer-mismatch", nil, "kelseyhightower/kubernetes-the-hard-way#759"},
}

// referencesOf are those of a finding, in the order of the table.
func referencesOf(f *Finding) []string {
	var out []string
	for _, r := range references {
		if r.rule == f.ID && (r.at == nil || r.at(f)) {
			out = append(out, r.text)
		}
	}
	return out
}

func fileIs(files ...string) func(*Finding) bool {
	return func(f *Finding) bool { return slices.Contains(files, f.Path) }
}

func baseIs(base string) func(*Finding) bool {
	return func(f *Finding) bool { return path.Base(f.Path) == base }
}

// keyBelow takes findings about the keys of a folder.
func keyBelow(folder string) func(*Finding) bool {
	return func(f *Finding) bool { return strings.HasPrefix(f.Path, folder) && path.Ext(f.Path) == ".key" }
}

func flagIs(flags ...string) func(*Finding) bool {
	return func(f *Finding) bool { return slices.Contains(flags, f.Field) }
}

func severityIs(s Severity) func(*Finding) bool {
	return func(f *Finding) bool { return f.Severity == s }
}

func andAlso(a, b func(*Finding) bool) func(*Finding) bool {
	return func(f *Finding) bool { return a(f) && b(f) }
}

// ofAPIServer and ofKubelet tell by the file that has the flag whose it is.
func ofAPIServer(f *Finding) bool { return strings.Contains(path.Base(f.Path), "apiserver") }

func ofKubelet(f *Finding) bool { return strings.Contains(f.Path, "kubelet") }

func inKubeconfig(f *Finding) bool { return strings.HasPrefix(f.Field, "clusters[") }
