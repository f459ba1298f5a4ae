package check_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// family is what hangs together at one authority of a control-plane node.
type family struct {
	authority string
	leaves    []string
	confs     []string
	worker    bool // workers hold it too
}

var families = []family{
	{"ca", []string{"apiserver", "apiserver-kubelet-client"}, allConfs, true},
	{"etcd/ca", []string{"etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client"}, nil, false},
	{"front-proxy-ca", []string{"front-proxy-client"}, nil, false},
}

// TestEachStepOfARotationStaysSilent replaces each authority of three control
// planes and a worker, node by node and step by step (docs/design/0004-rotation.md),
// by one of the same name: whichever nodes are a step ahead, nothing is wrong.
func TestEachStepOfARotationStaysSilent(t *testing.T) {
	for _, f := range families {
		t.Run(f.authority, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.HA)
			old := c.Read("cp1", "pki/"+f.authority+".crt")
			oldKey := c.Read("cp1", "pki/"+f.authority+".key")
			fresh := c.Recreate("cp1", f.authority)
			c.Write("cp1", "pki/"+f.authority+".crt", old)
			c.Write("cp1", "pki/"+f.authority+".key", oldKey)
			next := trust.EncodeCertificates(fresh.Certificate)
			nextKey := must(issue.EncodePrivateKey(fresh.Key))
			conf := func(node string, ca []byte) {
				for _, k := range f.confsOf(node) {
					c.SetConfCA(node, k, ca)
				}
			}
			steps := []struct {
				name string
				do   func(node string, controlPlane bool)
			}{
				{"separate", func(node string, controlPlane bool) {
					if controlPlane && f.authority == "ca" {
						signingFile(c, node)
					}
				}},
				{"accept", func(node string, _ bool) {
					c.Write(node, "pki/"+f.authority+".crt", slices.Concat(old, next))
					conf(node, slices.Concat(old, next))
				}},
				{"issue", func(node string, controlPlane bool) {
					c.Write(node, "pki/next.crt", next)
					c.Write(node, "pki/next.key", nextKey)
					for _, leaf := range f.leaves {
						if controlPlane {
							c.Reissue(node, leaf, "next", nil)
						}
					}
					for _, k := range f.confsOf(node) {
						c.ReissueConf(node, k, "next", nil)
					}
					c.Remove(node, "pki/next.crt")
					c.Remove(node, "pki/next.key")
				}},
				{"switch", func(node string, controlPlane bool) {
					c.Write(node, "pki/"+f.authority+".crt", slices.Concat(next, old))
					if !controlPlane {
						return
					}
					c.Write(node, "pki/"+f.authority+".key", nextKey)
					if f.authority == "ca" {
						c.Write(node, "pki/ca-signing.crt", next)
						c.Write(node, "pki/ca-signing.key", nextKey)
					}
				}},
				{"drop", func(node string, _ bool) {
					c.Write(node, "pki/"+f.authority+".crt", next)
					conf(node, next)
				}},
			}
			for _, s := range steps {
				for _, node := range []string{"w1", "cp2", "cp1", "cp3"} {
					if node == "w1" && !f.worker {
						continue
					}
					s.do(node, node != "w1")
					r := c.Verify(check.Options{})
					if got := weighty(r); len(got) > 0 {
						t.Fatalf("after %s on %s want silence, got:\n%s", s.name, node, describe(got))
					}
					explained(t, r)
				}
			}
		})
	}
}

func (f family) confsOf(node string) []string {
	if node == "w1" && f.confs != nil {
		return []string{"kubelet.conf"}
	}
	return f.confs
}

// TestARotationStepInTheWrongOrderIsFound: the same steps are faults when the one
// before was left out.
func TestARotationStepInTheWrongOrderIsFound(t *testing.T) {
	for _, f := range families {
		t.Run(fmt.Sprintf("%s is issued from before it is accepted", f.authority), func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.HA)
			for _, leaf := range f.leaves {
				fromOld(c, leaf, f.authority)
			}
			if got := weighty(c.Verify(check.Options{})); len(got) == 0 || got[0].ID != "authority-recreated" {
				t.Errorf("want authority-recreated, got:\n%s", describe(got))
			}
		})
	}
}
