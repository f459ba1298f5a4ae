package bundle_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

var options = check.Options{At: testpki.At}

func readNodes(t *testing.T, dir string) []trust.Node {
	t.Helper()
	names, err := layout.NodeRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []trust.Node
	for _, name := range names {
		n, _, err := layout.Read(filepath.Join(dir, name), layout.Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// foreign is an authority that is valid at [testpki.At].
func foreign(t *testing.T) *x509.Certificate {
	t.Helper()
	return certificate(t, "platform", nil, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = testpki.Made, testpki.Made.AddDate(5, 0, 0)
	}).Certificate
}

func errorsOf(nodes []trust.Node) []string {
	var all []string
	for _, f := range check.Run(catalog.Wire(nodes), options).Findings {
		if f.Severity == check.Error {
			all = append(all, f.ID+" "+f.Node+":"+f.Path)
		}
	}
	return all
}

// What is judged in memory is what the disk shows afterwards: each bundle of each
// kind of cluster gets another anchor, and loses each that it has.
func TestAnEffectIsWhatTheDiskShowsAfterwards(t *testing.T) {
	for _, kind := range []testpki.Kind{testpki.Single, testpki.Bare, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.Shared, testpki.ExternalEtcd} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, kind)
			nodes := readNodes(t, c.Dir)
			if found := errorsOf(nodes); len(found) > 0 {
				t.Fatalf("the cluster is not healthy: %q", found)
			}
			g := catalog.Wire(nodes)
			settings := bundle.Settings(g)
			new, tried := foreign(t), map[trust.Place]bool{}
			lost, kept := 0, 0
			for _, s := range settings {
				file := bundle.File(g, s.Anchors)
				m := g.Material(s.Anchors)
				if file.Field != "" || !m.OK() || tried[file] || file.Node == "cp2" || file.Node == "cp3" {
					continue // one control plane is like another
				}
				tried[file] = true
				path := filepath.Join(c.Dir, file.Node, file.Path)
				was, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				text, err := bundle.Parse(was)
				if err != nil {
					t.Fatal(err)
				}
				more, _, err := text.Add(new)
				if err != nil {
					t.Fatal(err)
				}
				changes := map[string]*bundle.Text{"add": more}
				for i, a := range text.Anchors {
					changes[fmt.Sprintf("remove %d", i)], _ = more.Remove(a.Certificate) // the foreign one stays, so it is not empty
				}
				for what, after := range changes {
					effect := bundle.Judge(nodes, []bundle.Edit{{File: file, Anchors: after.Certificates()}}, options)
					if err := os.WriteFile(path, after.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
					var got []string
					for _, f := range effect.Findings {
						got = append(got, f.ID+" "+f.Node+":"+f.Path)
					}
					if diff := cmp.Diff(errorsOf(readNodes(t, c.Dir)), got); diff != "" {
						t.Errorf("%s, %s: the disk differs from what was judged: %s", file, what, diff)
					}
					if what == "add" && len(effect.Lost) > 0 {
						t.Errorf("%s: adding loses %+v", file, effect.Lost)
					}
					if len(effect.Lost) > 0 {
						lost++
					}
				}
				if err := os.WriteFile(path, was, 0o644); err != nil {
					t.Fatal(err)
				}
				// An anchor that is said to serve links is needed where no other serves
				// them too, and one that serves none is not.
				for _, a := range text.Anchors {
					serves := 0
					for _, r := range bundle.Readers(g, settings, file) {
						serves += len(r.Serves(g, a.Certificate, testpki.At))
					}
					rest, _ := more.Remove(a.Certificate)
					effect := bundle.Judge(nodes, []bundle.Edit{{File: file, Anchors: rest.Certificates()}}, options)
					ownAuthority := slices.ContainsFunc(effect.Lost, func(l bundle.Lost) bool { return l.Link.Caller == "any client" })
					if len(text.Anchors) == 1 && serves > 0 && len(effect.Lost) == 0 {
						t.Errorf("%s: it serves %d links, and nobody misses it", file, serves)
					}
					if serves == 0 && len(effect.Lost) > 0 && !ownAuthority {
						t.Errorf("%s: it serves none, and %+v miss it", file, effect.Lost)
					}
					if serves == 0 {
						kept++
					}
				}
			}
			if len(tried) < 2 || lost == 0 {
				t.Errorf("%d files were tried, %d changes lost links", len(tried), lost)
			}
			t.Logf("%d files, %d changes lost links, %d anchors serve none", len(tried), lost, kept)
		})
	}
}

// The trap of kubeadm: its --client-ca-file is what kube-controller-manager signs with.
func TestAFileOfItsOwnIsJudgedByItself(t *testing.T) {
	nodes := readNodes(t, testpki.New(t, testpki.HA).Dir)
	g := catalog.Wire(nodes)
	var shared, own []bundle.Edit
	for _, s := range bundle.Settings(g) {
		if s.Component != catalog.APIServer || s.Name != "client-ca-file" {
			continue
		}
		anchors := append(slices.Clone(g.Material(s.Anchors).Certificates), foreign(t))
		shared = append(shared, bundle.Edit{File: s.Anchors, Anchors: anchors})
		own = append(own, bundle.Edit{File: trust.Place{Node: s.Node, Path: "/etc/kubernetes/pki/client-ca.crt"}, Anchors: anchors, Setting: s})
	}
	if effect := bundle.Judge(nodes, shared, options); len(effect.Findings) == 0 || effect.Findings[0].ID != "signer-not-single" {
		t.Errorf("the shared file: %+v", effect.Findings)
	}
	if effect := bundle.Judge(nodes, own, options); len(effect.Findings)+len(effect.Lost) > 0 {
		t.Errorf("a file of its own: %+v", effect)
	}
	// Without the cluster's authority it admits nobody that it did.
	for i := range own {
		own[i].Anchors = own[i].Anchors[1:]
	}
	if effect := bundle.Judge(nodes, own, options); len(effect.Lost) == 0 {
		t.Error("a file of its own without the cluster's authority loses nobody")
	}
	if v, _ := nodes[0].Components[0].Flag("client-ca-file"); strings.HasSuffix(v, "client-ca.crt") {
		t.Error("judging changed the nodes")
	}
}

func TestTakeupAndPowerNameWhatTheMatrixKnows(t *testing.T) {
	for _, row := range [][4]string{
		{catalog.APIServer, "client-ca-file", "by itself, mostly within a second", ""},
		{catalog.APIServer, "etcd-cafile", "restart kube-apiserver", ""},
		{catalog.APIServer, "kubelet-certificate-authority", "since 1.36 by itself, within 5m, before 1.36 restart kube-apiserver", ""},
		{catalog.APIServer, "kubelet-certificate-authority", "by itself, within 5m", "v1.37.2"},
		{catalog.APIServer, "kubelet-certificate-authority", "restart kube-apiserver", "v1.35.4"},
		{catalog.Etcd, "trusted-ca-file", "restart etcd", ""},
		{catalog.Kubelet, "no-such-setting", "not measured: restart kubelet", ""},
		{catalog.Scheduler, "authentication-kubeconfig/certificate-authority-data", "restart kube-scheduler", ""},
		{catalog.Etcdctl, "cacert", "when it is run next", ""},
	} {
		if got := bundle.Takeup(row[0], row[1], row[3]); got != row[2] {
			t.Errorf("%s/%s: %q, want %q", row[0], row[1], got, row[2])
		}
	}
	if !strings.Contains(bundle.Power(catalog.APIServer, "client-ca-file"), "system:masters") || bundle.Power(catalog.APIServer, "etcd-cafile") != "" {
		t.Error("whose power is what")
	}
}
