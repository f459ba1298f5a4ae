package layout_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	clientapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/clientcmd/api/latest"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// clientcmdWrite is what clientcmd.Write does (tools/clientcmd/loader.go).
func clientcmdWrite(t *testing.T, c *clientapi.Config) []byte {
	t.Helper()
	data, err := runtime.Encode(latest.Codec, c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// clientcmdLoad is what clientcmd.Load does.
func clientcmdLoad(data []byte) (*clientapi.Config, error) {
	c := clientapi.NewConfig()
	kind := latest.ExternalVersion.WithKind("Config")
	_, _, err := latest.Codec.Decode(data, &kind, c)
	return c, err
}

func TestEncodeKubeconfigWritesWhatClientcmdWrites(t *testing.T) {
	ec := ecPair(t)
	for name, spec := range map[string]layout.KubeconfigSpec{
		"embedded, as kubeadm": {
			Cluster: "kubernetes", Server: "https://10.0.0.11:6443", CA: ec.certificate,
			User: "system:kube-scheduler", Certificate: ec.certificate, Key: ec.sec1,
		},
		"by path": {
			Cluster: "kubernetes", Server: "https://[fd00::1]:6443", CAFile: "/etc/kubernetes/pki/ca.crt", ServerName: "kubernetes",
			User: "system:node:n1", CertificateFile: "/var/lib/kubelet/pki/kubelet-client-current.pem", KeyFile: "/var/lib/kubelet/pki/kubelet-client-current.pem",
			Context: "default", Namespace: "kube-system",
		},
		"by a proxy": {
			Cluster: "kubernetes", Server: "https://10.0.0.11:6443", CA: ec.certificate, ServerName: "kubernetes", ProxyURL: "http://jane:word@proxy.example.test:3128",
			User: "jane", Certificate: ec.certificate, Key: ec.sec1,
		},
		"a token and strange names": {
			Cluster: "no", Server: "https://a: b", CA: ec.certificate, User: "123", Token: "abcdef.0123456789abcdef", Context: "on # off",
		},
		"a volume of a service account": {
			Cluster: "kubernetes", Server: "https://10.0.0.11:6443", CAFile: "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
			User: "system:serviceaccount:ci:robot", TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token", Namespace: "ci",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := layout.EncodeKubeconfig(spec)
			if err != nil {
				t.Fatal(err)
			}
			context := spec.Context
			if context == "" {
				context = spec.User + "@" + spec.Cluster
			}
			c := clientapi.NewConfig()
			c.CurrentContext = context
			c.Clusters[spec.Cluster] = &clientapi.Cluster{
				Server: spec.Server, TLSServerName: spec.ServerName, CertificateAuthority: spec.CAFile, CertificateAuthorityData: spec.CA, ProxyURL: spec.ProxyURL,
			}
			c.Contexts[context] = &clientapi.Context{Cluster: spec.Cluster, AuthInfo: spec.User, Namespace: spec.Namespace}
			c.AuthInfos[spec.User] = &clientapi.AuthInfo{
				ClientCertificate: spec.CertificateFile, ClientCertificateData: spec.Certificate,
				ClientKey: spec.KeyFile, ClientKeyData: spec.Key, Token: spec.Token, TokenFile: spec.TokenFile,
			}
			if diff := cmp.Diff(string(clientcmdWrite(t, c)), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEncodeKubeconfigNamesWhatIsWrong(t *testing.T) {
	pem := []byte("x")
	good := layout.KubeconfigSpec{Cluster: "c", Server: "s", CA: pem, User: "u", Certificate: pem, Key: pem}
	if _, err := layout.EncodeKubeconfig(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*layout.KubeconfigSpec){
		"the name of the cluster is not set":       func(k *layout.KubeconfigSpec) { k.Cluster = "" },
		"the name of the user is not set":          func(k *layout.KubeconfigSpec) { k.User = "" },
		"the server is not set":                    func(k *layout.KubeconfigSpec) { k.Server = "" },
		"the CA is given as data and as a file":    func(k *layout.KubeconfigSpec) { k.CAFile = "/a" },
		"the client certificate is given as data":  func(k *layout.KubeconfigSpec) { k.CertificateFile = "/a" },
		"the client key is given as data":          func(k *layout.KubeconfigSpec) { k.KeyFile = "/a" },
		"certificate and its key belong together":  func(k *layout.KubeconfigSpec) { k.Key = nil },
		"neither a client certificate nor a token": func(k *layout.KubeconfigSpec) { k.Key, k.Certificate = nil, nil },
		"the token is given as data and as a file": func(k *layout.KubeconfigSpec) { k.Token, k.TokenFile = "t", "/t" },
		"is not UTF-8": func(k *layout.KubeconfigSpec) { k.Token = "\xff" },
	} {
		k := good
		change(&k)
		if _, err := layout.EncodeKubeconfig(k); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// kubeconfig is a good kubeconfig as text, to be broken by the tests.
func kubeconfig(t testing.TB, p pair) string {
	t.Helper()
	data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "kubernetes", Server: "https://10.0.0.11:6443", CA: p.certificate, User: "admin", Certificate: p.certificate, Key: p.sec1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseKubeconfigResolvesTheCurrentContext(t *testing.T) {
	ec := ecPair(t)
	at := trust.Place{Node: "cp1", Path: "/etc/kubernetes/admin.conf"}
	k, materials, keys := layout.ParseKubeconfig(at, []byte(kubeconfig(t, ec)))
	want := trust.Kubeconfig{
		Place: at, State: trust.Present, Server: "https://10.0.0.11:6443", User: "admin", Cluster: "kubernetes", Context: "admin@kubernetes",
		CA:          at.In("clusters[kubernetes].cluster.certificate-authority-data"),
		Certificate: at.In("users[admin].user.client-certificate-data"),
		Key:         at.In("users[admin].user.client-key-data"),
		ServerField: "clusters[kubernetes].cluster.server", Secret: true,
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Error(diff)
	}
	if len(materials) != 3 {
		t.Fatalf("%d materials", len(materials))
	}
	for i, m := range materials {
		place, role := []trust.Place{k.CA, k.Certificate, k.Key}[i], []trust.Role{trust.RoleBundle, trust.RoleCertificate, trust.RoleKey}[i]
		if m.State != trust.Present || m.Place != place || m.Role != role {
			t.Errorf("%s %s is %s: %s", m.Place, m.Role, m.State, m.Reason)
		}
	}
	if len(keys) != 1 || keys[k.Key] == nil || !keys[k.Key].Public().(equaler).Equal(ec.key.Public()) {
		t.Errorf("keyring: %d keys", len(keys))
	}
}

func TestParseKubeconfigResolvesPathsAgainstItsFolder(t *testing.T) {
	at := trust.Place{Node: "w1", Path: "/etc/kubernetes/kubelet.conf"}
	k, materials, _ := layout.ParseKubeconfig(at, []byte(`{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],
"clusters":[{"name":"k","cluster":{"server":"https://s","certificate-authority":"pki/ca.crt","tls-server-name":"kubernetes","insecure-skip-tls-verify":true}}],
"users":[{"name":"u","user":{"client-certificate":"/var/lib/kubelet/pki/current.pem","client-key":"../../var/x.pem","tokenFile":"/t"}}]}`))
	want := trust.Kubeconfig{
		Place: at, State: trust.Present, Server: "https://s", ServerName: "kubernetes", Insecure: true, HasToken: true, User: "u", Cluster: "k", Context: "c",
		CA:          trust.Place{Node: "w1", Path: "/etc/kubernetes/pki/ca.crt"},
		Certificate: trust.Place{Node: "w1", Path: "/var/lib/kubelet/pki/current.pem"},
		Key:         trust.Place{Node: "w1", Path: "/var/x.pem"},
		ServerField: "clusters[k].cluster.server",
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Error(diff)
	}
	if len(materials) != 0 {
		t.Errorf("%d materials", len(materials))
	}
}

func TestParseKubeconfigSaysWhichFieldIsBroken(t *testing.T) {
	const secret = "c2VjcmV0LXRva2Vu"
	ec := ecPair(t)
	good := kubeconfig(t, ec)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the kubeconfig", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ text, field, reason string }{
		"no current context":       {replace("current-context: admin@kubernetes", "x: y"), "current-context", "is not set"},
		"a dangling context":       {replace("current-context: admin@kubernetes", "current-context: other"), "current-context", `there is no context "other"`},
		"a dangling cluster":       {replace("cluster: kubernetes", "cluster: other"), "contexts[admin@kubernetes].context.cluster", `there is no cluster "other"`},
		"a dangling user":          {replace("user: admin", "user: other"), "contexts[admin@kubernetes].context.user", `there is no user "other"`},
		"no cluster":               {replace("    cluster: kubernetes\n", ""), "contexts[admin@kubernetes].context.cluster", "is not set"},
		"no server":                {replace("server: https://10.0.0.11:6443", "x: y"), "clusters[kubernetes].cluster.server", "is not set"},
		"CA as data and file":      {replace("server:", "certificate-authority: /ca.crt\n    server:"), "clusters[kubernetes].cluster.certificate-authority", "certificate-authority-data too"},
		"certificate twice":        {replace("  user:\n", "  user:\n    client-certificate: /a\n"), "users[admin].user.client-certificate", "client-certificate-data too"},
		"key twice":                {replace("  user:\n", "  user:\n    client-key: /a\n"), "users[admin].user.client-key", "client-key-data too"},
		"certificate without key":  {replace("client-key-data", "x"), "users[admin].user.client-key", "is not set"},
		"bad base64 of the CA":     {replace("authority-data: ", "authority-data: '!'#"), "clusters[kubernetes].cluster.certificate-authority-data", "is not base64"},
		"bad base64 of the key":    {replace("key-data: ", "key-data: "+secret+"!"), "users[admin].user.client-key-data", "is not base64"},
		"duplicate clusters":       {replace("contexts:", "- cluster: {server: a}\n  name: kubernetes\ncontexts:"), "clusters[kubernetes]", "is there twice"},
		"duplicate users":          {good + "- name: admin\n  user: {token: " + secret + "}\n", "users[admin]", "is there twice"},
		"duplicate contexts":       {replace("current-context:", "- name: admin@kubernetes\n  context: {}\ncurrent-context:"), "contexts[admin@kubernetes]", "is there twice"},
		"token and password":       {replace("  user:\n", "  user:\n    token: "+secret+"\n    password: p\n"), "users[admin].user.token", "password too"},
		"another kind":             {replace("kind: Config", "kind: Pod"), "kind", "is not Config"},
		"another version":          {replace("apiVersion: v1", "apiVersion: v2"), "apiVersion", "is not v1"},
		"a list as server":         {replace("server: https://10.0.0.11:6443", "server: ["+secret+"]"), "clusters.cluster.server", "is not a text"},
		"a text as list of users":  {replace("users:\n", "users: "+secret+"\nx:\n"), "users", "is not a list"},
		"a number as token":        {replace("  user:\n", "  user:\n    token: 12345\n"), "users.user.token", "is not a text"},
		"not YAML":                 {"a: b\n\tc: " + secret, "", "is not YAML: see line"},
		"a text":                   {secret, "", "is YAML of another form"},
		"an empty file":            {"", "current-context", "is not set"},
		"an alias that grows":      {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "", "is not YAML"},
		"more than a mebibyte":     {strings.Repeat("#", layout.MaxFile+1), "", "larger than 1 MiB"},
		"names of the wrong case":  {replace("current-context", "Current-Context"), "current-context", "is not set"},
		"a PEM file":               {string(ec.sec1), "", ""},
		"a null document of depth": {strings.Repeat("[", 20000), "", "is not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			at := trust.Place{Path: "/etc/kubernetes/admin.conf"}
			k, materials, keys := layout.ParseKubeconfig(at, []byte(c.text))
			if k.State != trust.Malformed || k.Field != c.field || !strings.Contains(k.Reason, c.reason) || k.Place != at {
				t.Errorf("%s, field %q: %q; want field %q: %q", k.State, k.Field, k.Reason, c.field, c.reason)
			}
			if len(materials) != 0 || len(keys) != 0 {
				t.Error("a broken kubeconfig gives materials")
			}
			if strings.Contains(fmt.Sprintf("%+v", k), secret) || strings.Contains(k.Reason, "\n") {
				t.Errorf("the reason shows a secret or has two lines: %q", k.Reason)
			}
		})
	}
}

func TestAMalformedPEMInAKubeconfigIsAMalformedMaterial(t *testing.T) {
	ec := ecPair(t)
	text := strings.Replace(kubeconfig(t, ec), base64.StdEncoding.EncodeToString(ec.certificate), base64.StdEncoding.EncodeToString([]byte("junk")), 1)
	k, materials, _ := layout.ParseKubeconfig(trust.Place{Path: "/k"}, []byte(text))
	if k.State != trust.Present || materials[0].State != trust.Malformed || materials[1].State != trust.Present {
		t.Errorf("%s, %s, %s", k.State, materials[0].State, materials[1].State)
	}
}

func TestMergeKubeconfigs(t *testing.T) {
	file := func(cluster, user, server string) []byte {
		data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{Cluster: cluster, Server: server, CAFile: "/ca", User: user, Token: "t"})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a, b := file("prod", "zoe", "https://prod"), file("dev", "jane", "https://dev")
	withExtras := []byte(strings.Replace(string(file("extra", "exec", "https://x")), "token: t",
		"exec: {command: login, args: [a], env: null, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, provideClusterInfo: false}", 1))
	got, err := layout.MergeKubeconfigs([][]byte{a, b, withExtras, a})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := clientcmdLoad(got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(clientcmdWrite(t, loaded)), string(got)); diff != "" {
		t.Errorf("clientcmd writes it otherwise: %s", diff)
	}
	if loaded.CurrentContext != "zoe@prod" || len(loaded.Clusters) != 3 || len(loaded.AuthInfos) != 3 || len(loaded.Contexts) != 3 {
		t.Errorf("current %q, %d clusters", loaded.CurrentContext, len(loaded.Clusters))
	}
	if loaded.AuthInfos["exec"].Exec == nil || loaded.AuthInfos["exec"].Exec.Command != "login" {
		t.Error("a field that is not ours was lost")
	}
	for want, files := range map[string][][]byte{
		"kubeconfig 2 of 2: clusters[prod]: another kubeconfig":         {a, file("prod", "zoe", "https://other")},
		"kubeconfig 1 of 1: clusters[c].cluster.certificate-authority":  {[]byte("clusters: [{name: c, cluster: {server: s, certificate-authority: ca.crt}}]")},
		"kubeconfig 2 of 2: is not YAML":                                {a, []byte("\t")},
		"kubeconfig 1 of 1: users[u].user.client-key-data: is not base": {[]byte("users: [{name: u, user: {client-key-data: '!'}}]")},
		"no kubeconfig to merge":                                        nil,
	} {
		if _, err := layout.MergeKubeconfigs(files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// FuzzKubeconfig holds the reader against clientcmd's: what is Present here
// must load there with the same values, and what does not load there must be
// Malformed here. What is merged must read the same again.
func FuzzKubeconfig(f *testing.F) {
	good := kubeconfig(f, ecPair(f))
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, "client-key-data", "client-key", 1)))
	f.Add([]byte(`{"current-context":"","clusters":null,"users":[{"name":"","user":{"exec":{}}}]}`))
	f.Add([]byte("current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\nclusters: [{name: a, cluster: {server: a}}]\nusers: [{name: a, user: {token: a}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, materials, keys := layout.ParseKubeconfig(trust.Place{Path: "/k"}, data)
		theirs, err := clientcmdLoad(data)
		if k.State != trust.Present {
			if k.Reason == "" || len(materials)+len(keys) > 0 {
				t.Fatalf("malformed without reason, or with materials: %+v", k)
			}
			return
		}
		if err != nil {
			if strings.Contains(err.Error(), "no kind") || strings.Contains(err.Error(), "exec") || strings.Contains(err.Error(), "unmarshal") {
				return // in fields that are not read here
			}
			t.Fatalf("clientcmd refuses it: %v", err)
		}
		c, u := theirs.Clusters[k.Cluster], theirs.AuthInfos[k.User]
		if theirs.CurrentContext != k.Context || c == nil || u == nil {
			t.Fatalf("context %q, cluster %v, user %v", theirs.CurrentContext, c, u)
		}
		if c.Server != k.Server || c.InsecureSkipTLSVerify != k.Insecure || c.TLSServerName != k.ServerName ||
			(len(c.CertificateAuthorityData) > 0) != (k.CA.Field != "") || (len(u.ClientKeyData) > 0) != (k.Key.Field != "") {
			t.Fatalf("read otherwise: %+v, %+v", k, c)
		}
		merged, err := layout.MergeKubeconfigs([][]byte{data, data})
		if err != nil {
			return // relative paths
		}
		k2, materials2, _ := layout.ParseKubeconfig(k.Place, merged)
		if diff := cmp.Diff(k, k2); diff != "" || len(materials) != len(materials2) {
			t.Fatalf("merged with itself it reads otherwise: %s", diff)
		}
		if again, err := layout.MergeKubeconfigs([][]byte{merged}); err != nil || !bytes.Equal(again, merged) {
			t.Fatalf("merging is not stable: %v", err)
		}
	})
}
