package mtls_test

import (
	"crypto/tls"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// conf is a kubeconfig in a folder of its own, beside a disk.
type conf struct {
	*disk
	path string
}

func newConf(t *testing.T) *conf {
	d := newDisk(t)
	return &conf{disk: d, path: filepath.Join(filepath.Dir(d.files.Bundle), "jane.conf")}
}

func keyPEM(t testing.TB, c tls.Certificate) []byte {
	t.Helper()
	return tlstest.KeyPEM(t, &c)
}

// embed writes a kubeconfig that holds everything.
func (c *conf) embed(t *testing.T, ca issue.Authority, pair tls.Certificate) {
	t.Helper()
	data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "shop", Server: "https://10.0.0.11:6443", CA: trust.EncodeCertificates(ca.Certificate),
		User: "jane", Certificate: trust.EncodeCertificates(pair.Leaf), Key: keyPEM(t, pair),
	})
	if err != nil {
		t.Fatal(err)
	}
	tlstest.Put(t, c.path, data)
}

// refer writes a kubeconfig that names files beside it.
func (c *conf) refer(t *testing.T, server, ca, certificate, key string) {
	t.Helper()
	tlstest.Put(t, c.path, []byte(`{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"shop","user":"jane"}}],
"clusters":[{"name":"shop","cluster":{"server":"`+server+`","certificate-authority":"`+ca+`"}}],
"users":[{"name":"jane","user":{"client-certificate":"`+certificate+`","client-key":"`+key+`"}}]}`))
}

func (c *conf) open(t *testing.T) *mtls.KubeconfigSource {
	t.Helper()
	s, err := mtls.OpenKubeconfig(c.path, "", c.told)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKubeconfigThatHoldsEverythingIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, c := tlstest.Authority(t, "ca"), newConf(t)
		c.embed(t, ca, leaf(t, ca, "one", forClients))
		s := c.open(t)
		first := looks(t, s, 3)
		if showing(first) != "one" || trusting(first) != "ca" || looks(t, s, 2) != first {
			t.Errorf("%s, %s", showing(first), trusting(first))
		}
		if got := s.Server(); got != (mtls.Server{URL: "https://10.0.0.11:6443", Name: "10.0.0.11"}) {
			t.Errorf("%+v", got)
		}
		c.embed(t, tlstest.Authority(t, "next"), leaf(t, ca, "two", forClients))
		if now := looks(t, s, 3); showing(now) != "two" || trusting(now) != "next" {
			t.Errorf("%s, %s", showing(now), trusting(now))
		}
		c.want(t, "jane.conf", "")
		cut(t, c.path)
		if now := looks(t, s, 3); showing(now) != "two" || !s.Status().Failing {
			t.Errorf("%s, %+v", showing(now), s.Status())
		}
	})
}

func TestFilesOfAKubeconfigAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, c := tlstest.Authority(t, "ca"), newConf(t)
		c.writePair(t, leaf(t, ca, "one", forClients))
		c.writeBundle(t, ca)
		c.refer(t, "https://api.example.test:6443", "ca.crt", "tls.crt", c.files.Key) // relative, and absolute
		s := c.open(t)
		c.writePair(t, leaf(t, ca, "two", forClients))
		if now := looks(t, s, 3); showing(now) != "two" || trusting(now) != "ca" {
			t.Errorf("%s, %s", showing(now), trusting(now))
		}
		c.want(t, "tls.crt", "")

		// Other files, of which one comes late: what was before is followed on.
		dir := filepath.Dir(c.path)
		next := leaf(t, ca, "three", forClients)
		tlstest.Put(t, filepath.Join(dir, "next.key"), keyPEM(t, next))
		c.refer(t, "https://other.example.test", "ca.crt", "next.crt", "next.key")
		looks(t, s, 3)
		c.writePair(t, leaf(t, ca, "two again", forClients))
		c.writeBundle(t, ca, tlstest.Authority(t, "more"))
		if now := looks(t, s, 3); showing(now) != "two again" || trusting(now) != "ca more" || s.Server().Name != "api.example.test" {
			t.Errorf("%s, %s", showing(now), trusting(now))
		}
		if !s.Status().Failing {
			t.Error("nobody says that a file is missing")
		}
		tlstest.Put(t, filepath.Join(dir, "next.crt"), trust.EncodeCertificates(next.Leaf))
		if now := looks(t, s, 3); showing(now) != "three" || s.Server().Name != "other.example.test" {
			t.Errorf("%s", showing(now))
		}
		c.want(t, "tls.crt tls.crt ca.crt jane.conf", "next.crt: no such file")

		tlstest.Put(t, filepath.Join(dir, "next.key"), keyPEM(t, leaf(t, ca, "other", forClients)))
		looks(t, s, 3)
		if status := s.Status(); !status.Failing || status.Refused != 2 || time.Since(status.AsOf) < 2*time.Second {
			t.Errorf("%+v", status)
		}
		c.refer(t, "https://other.example.test", "ca.crt", "tls.crt", "tls.key")
		looks(t, s, 3)
		if status := s.Status(); status.Failing || time.Since(status.AsOf) > 2*time.Second {
			t.Errorf("it names others, and %+v", status)
		}
	})
}

func TestKubeconfigsThatAreRefused(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	c := newConf(t)
	pair := leaf(t, ca, "jane", forClients)
	c.embed(t, ca, pair)
	data, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	certificate := "client-certificate-data: " + base64.StdEncoding.EncodeToString(trust.EncodeCertificates(pair.Leaf))
	key := "client-key-data: " + base64.StdEncoding.EncodeToString(keyPEM(t, pair))
	bundle := "certificate-authority-data: " + base64.StdEncoding.EncodeToString(trust.EncodeCertificates(ca.Certificate))
	for name, row := range map[string]struct{ old, new, want string }{
		"a token alone":              {certificate + "\n    " + key, "token: c2VjcmV0", "users[jane].user.client-certificate: is not set"},
		"a password alone":           {certificate + "\n    " + key, "username: jane\n    password: c2VjcmV0", "users[jane].user.client-certificate: is not set"},
		"a plugin":                   {key, key + "\n    exec: {command: c2VjcmV0}", "users[jane].user.exec: is a plugin"},
		"a plugin of before":         {key, key + "\n    auth-provider: {name: c2VjcmV0}", "users[jane].user.auth-provider: is a plugin"},
		"a server that proves none":  {bundle, "insecure-skip-tls-verify: true", "clusters[shop].cluster.insecure-skip-tls-verify: is true"},
		"no authority":               {bundle, "proxy-url: http://p", "clusters[shop].cluster.certificate-authority: is not set"},
		"a server without TLS":       {"https://", "http://", "clusters[shop].cluster.server: is not of the form https"},
		"a key of another":           {key, "client-key-data: " + base64.StdEncoding.EncodeToString(keyPEM(t, leaf(t, ca, "x", forClients))), "does not belong to the key"},
		"a certificate for servers":  {certificate + "\n    " + key, "client-certificate: server.crt\n    client-key: server.key", "lack clientAuth"},
		"a file that is not there":   {key, "client-key: c.key", "c.key: no such file"},
		"no kubeconfig at all":       {good, string(keyPEM(t, pair)), "jane.conf: "},
		"one without its context":    {"current-context: jane@shop", "x: y", "current-context: is not set"},
		"good: a token beside it":    {key, key + "\n    token: c2VjcmV0", ""},
		"good: the server by number": {"https://10.0.0.11:6443", "10.0.0.11:6443\n    tls-server-name: kubernetes", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConf(t)
			server := leaf(t, ca, "server", forServers)
			tlstest.Put(t, filepath.Join(filepath.Dir(c.path), "server.crt"), trust.EncodeCertificates(server.Leaf))
			tlstest.Put(t, filepath.Join(filepath.Dir(c.path), "server.key"), keyPEM(t, server))
			if !strings.Contains(good, row.old) {
				t.Fatalf("no %q in the kubeconfig", row.old)
			}
			tlstest.Put(t, c.path, []byte(strings.Replace(good, row.old, row.new, 1)))
			s, err := mtls.OpenKubeconfig(c.path, "", nil)
			if row.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := s.Server().Name; strings.Contains(row.new, "kubernetes") && got != "kubernetes" {
					t.Errorf("it is called %q", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), filepath.Dir(c.path)) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			for _, secret := range []string{"c2VjcmV0", "PRIVATE", key[30:60]} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("it shows a secret: %v", err)
				}
			}
		})
	}
}

func TestContextOfAKubeconfig(t *testing.T) {
	ca, c := tlstest.Authority(t, "ca"), newConf(t)
	c.embed(t, ca, leaf(t, ca, "jane", forClients))
	if _, err := mtls.OpenKubeconfig(c.path, "jane@shop", nil); err != nil {
		t.Error(err)
	}
	if _, err := mtls.OpenKubeconfig("", "", nil); err == nil || !strings.Contains(err.Error(), "KUBECONFIG") {
		t.Errorf("got %v", err)
	}
	_, err := mtls.OpenKubeconfig(c.path, "other", nil)
	if err == nil || !strings.Contains(err.Error(), `contexts: there is no context "other"`) {
		t.Errorf("got %v", err)
	}
}

// The kubelet's certificate and key are one file, behind a link that is replaced
// (k8s.io/client-go/util/certificate/certificate_store.go).
func TestFilesOfAKubelet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, ca := t.TempDir(), tlstest.Authority(t, "ca")
		current := filepath.Join(dir, "kubelet-client-current.pem")
		rotate := func(name string) {
			t.Helper()
			pair, file := leaf(t, ca, name, forClients), filepath.Join(dir, "kubelet-client-"+name+".pem")
			tlstest.Put(t, file, append(trust.EncodeCertificates(pair.Leaf), keyPEM(t, pair)...))
			if err := os.Symlink(file, current+".tmp"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(current+".tmp", current); err != nil {
				t.Fatal(err)
			}
		}
		rotate("one")
		c := &conf{disk: newDisk(t), path: filepath.Join(dir, "kubelet.conf")}
		tlstest.Put(t, filepath.Join(dir, "ca.crt"), trust.EncodeCertificates(ca.Certificate))
		c.refer(t, "https://10.0.0.11:6443", "ca.crt", "kubelet-client-current.pem", "kubelet-client-current.pem")
		files, err := mtls.OpenFiles(mtls.Files{Certificate: current, Key: current, Usage: forClients}, c.told)
		if err != nil {
			t.Fatal(err)
		}
		kubeconfig := c.open(t)
		for _, name := range []string{"one", "two", "three"} {
			rotate(name + "!")
			if got, other := showing(looks(t, files, 3)), showing(looks(t, kubeconfig, 3)); got != name+"!" || other != name+"!" {
				t.Errorf("%s and %s are shown, want %s", got, other, name)
			}
		}
		if s := files.Status(); s.Taken != 3 || s.Refused != 0 || s.Failing {
			t.Errorf("%+v", s)
		}
	})
}

// A Secret is mounted as links through ..data, which is replaced at once
// (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go).
func TestFilesOfAMountedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ca := newDisk(t), tlstest.Authority(t, "ca")
		dir := filepath.Dir(d.files.Bundle)
		mount := func(name string, files map[string][]byte) {
			t.Helper()
			folder := ".." + name
			if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, data := range files {
				tlstest.Put(t, filepath.Join(dir, folder, file), data)
			}
			if err := os.Symlink(folder, filepath.Join(dir, "..data_tmp")); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Readlink(filepath.Join(dir, "..data"))
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
			if before != "" {
				os.RemoveAll(filepath.Join(dir, before))
			}
		}
		secret := func(name string, ca issue.Authority) map[string][]byte {
			pair := leaf(t, ca, name, forServers)
			return map[string][]byte{"tls.crt": trust.EncodeCertificates(pair.Leaf), "tls.key": keyPEM(t, pair), "ca.crt": trust.EncodeCertificates(ca.Certificate)}
		}
		for _, file := range []string{"tls.crt", "tls.key", "ca.crt"} {
			if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
		}
		mount("one", secret("one", ca))
		s := d.open(t)
		next := tlstest.Authority(t, "next")
		mount("two", secret("two", next))
		if now := looks(t, s, 3); showing(now) != "two" || trusting(now) != "next" {
			t.Errorf("%s, %s", showing(now), trusting(now))
		}
		lacking := secret("three", next)
		delete(lacking, "tls.key")
		mount("three", lacking)
		if now := looks(t, s, 3); showing(now) != "two" || !s.Status().Failing {
			t.Errorf("%s, %+v", showing(now), s.Status())
		}
		mount("four", secret("four", next))
		if now := looks(t, s, 3); showing(now) != "four" || s.Status().Failing || time.Since(s.Status().AsOf) > time.Second {
			t.Errorf("%s, %+v", showing(now), s.Status())
		}
	})
}
