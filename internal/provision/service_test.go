package provision_test

import (
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/provision"
)

func service(t *testing.T, names ...string) provision.Options {
	t.Helper()
	if len(names) == 0 {
		names = []string{"api.example.test", "10.0.0.5"}
	}
	return provision.Options{Cluster: single(t), Dir: t.TempDir(), Service: &provision.Service{Names: names}}
}

func TestServiceLayout(t *testing.T) {
	o := service(t)
	must(t, o)
	before := tree(t, o.Dir)
	var files []string
	for name, content := range before {
		mode, _, _ := strings.Cut(content, " ")
		files = append(files, mode+" "+name)
	}
	slices.Sort(files)
	want := []string{
		"-rw------- ca.key", "-rw------- client/client.key", "-rw------- server/server.key",
		"-rw-r--r-- ca.crt", "-rw-r--r-- ca.srl",
		"-rw-r--r-- client/client.crt", "-rw-r--r-- client/client.csr",
		"-rw-r--r-- server/server.crt", "-rw-r--r-- server/server.csr",
		"drwxr-xr-x .", "drwxr-xr-x client", "drwxr-xr-x server",
	}
	if d := cmp.Diff(want, files); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	leaf := readCertificates(t, filepath.Join(o.Dir, "server/server.crt"))[0]
	if err := leaf.VerifyHostname("api.example.test"); err != nil {
		t.Error(err)
	}
	if err := leaf.VerifyHostname("10.0.0.5"); err != nil {
		t.Error(err)
	}
	must(t, o)
	if d := cmp.Diff(before, tree(t, o.Dir)); d != "" {
		t.Errorf("the second run changed files:\n%s", d)
	}
}

func TestServiceSerialsCountOn(t *testing.T) {
	o := service(t)
	must(t, o)
	client := readCertificates(t, filepath.Join(o.Dir, "client/client.crt"))[0]
	server := readCertificates(t, filepath.Join(o.Dir, "server/server.crt"))[0]
	data, err := os.ReadFile(filepath.Join(o.Dir, "ca.srl"))
	if err != nil {
		t.Fatal(err)
	}
	last, ok := new(big.Int).SetString(strings.TrimSpace(string(data)), 16)
	if !ok || last.Cmp(server.SerialNumber) != 0 || len(strings.TrimSpace(string(data)))%2 != 0 {
		t.Errorf("ca.srl holds %q, want the server's serial %X in whole bytes", data, server.SerialNumber)
	}
	if next := new(big.Int).Add(client.SerialNumber, big.NewInt(1)); next.Cmp(server.SerialNumber) != 0 {
		t.Errorf("serials are %X and %X, want one after the other", client.SerialNumber, server.SerialNumber)
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed, so that it cannot go on signing")
	}
	run := func(args ...string) {
		t.Helper()
		c := exec.Command(openssl, args...)
		c.Dir = o.Dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v: %s", args[0], err, out)
		}
	}
	run("x509", "-req", "-in", "client/client.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAserial", "ca.srl", "-out", "third.crt", "-days", "3")
	third := readCertificates(t, filepath.Join(o.Dir, "third.crt"))[0]
	if next := new(big.Int).Add(server.SerialNumber, big.NewInt(1)); next.Cmp(third.SerialNumber) != 0 {
		t.Errorf("openssl went on with %X after %X", third.SerialNumber, server.SerialNumber)
	}
	// A pair that is made anew leaves openssl's count alone.
	remove(t, o.Dir, "server/server.crt", "server/server.key", "server/server.csr")
	before := tree(t, o.Dir)["ca.srl"]
	must(t, o)
	if tree(t, o.Dir)["ca.srl"] != before {
		t.Error("ca.srl changed")
	}
}

func TestServiceCompletesAndRefuses(t *testing.T) {
	for file, want := range map[string]string{
		"client/client.csr": "", "ca.srl": "",
		"ca.key":            "kept",
		"ca.crt":            "without its certificate",
		"client/client.key": "without its key", "client/client.crt": "anew",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			o := service(t)
			must(t, o)
			before := tree(t, o.Dir)
			remove(t, o.Dir, file)
			switch want {
			case "":
				must(t, o)
				after := tree(t, o.Dir)
				if after[file] == "" {
					t.Error("was not made anew")
				}
				before[file] = after[file]
				if d := cmp.Diff(before, after); d != "" {
					t.Errorf("other files changed:\n%s", d)
				}
			case "kept":
				if a := actions(must(t, o)); a[provision.Made] > 0 {
					t.Errorf("%v, want all kept", a)
				}
			case "anew":
				// The request says that the key is kubepki's own.
				if a := actions(must(t, o)); a[provision.Made] != 1 {
					t.Errorf("%v, want one made", a)
				}
			default:
				refused(t, o, want)
			}
		})
	}
	o := service(t)
	must(t, o)
	o.Service = &provision.Service{Names: []string{"other.example.test"}}
	refused(t, o, `common name is "api.example.test", asked was "other.example.test"`)
	o.Service = &provision.Service{Names: []string{"api.example.test", "other.example.test"}}
	refused(t, o, `DNS name "other.example.test" is missing`)
	node := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	must(t, node)
	node.Service = o.Service
	refused(t, node, "is the root of a Kubernetes node")
	o.Service = nil
	refused(t, o, "is a folder of the service layout")
}
