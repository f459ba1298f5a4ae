package main

import (
	"crypto"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/trust"
)

// saServer is what the flags of a kube-apiserver say about the tokens that it
// makes.
type saServer struct {
	node               string // "": the only one
	key                crypto.Signer
	keyPath            string // on this machine
	problem            error  // why the key is not at hand
	issuers, audiences []string
	verify             []crypto.PublicKey // none: not known
	ca                 []byte             // PEM, for pods; nil: not known
}

// readSAServers reads the API servers of the control plane whose / a folder is,
// or of several below it, which must be of one mind; byKey tells that they must
// sign with one key too.
func readSAServers(root string, byKey bool) ([]*saServer, error) {
	nodes, keys, err := readCluster(cluster{nodes: []nodeRoot{{dir: root}}})
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, r := range expand(nodeRoot{dir: root}) {
		dirs[r.name] = r.dir
	}
	var all []*saServer
	for i := range nodes {
		for _, c := range nodes[i].Components {
			if c.Name == catalog.APIServer {
				all = append(all, newSAServer(&nodes[i], &c, keys, dirs[nodes[i].Name]))
			}
		}
	}
	if len(all) == 0 {
		return nil, advise(fmt.Errorf("--root %s: no kube-apiserver runs there", root), "name the / of a control plane, or the key with --key")
	}
	for _, other := range all[1:] {
		if !all[0].agrees(other, byKey) {
			return nil, advise(fmt.Errorf("--root %s: the kube-apiservers of %s and %s sign with other keys, or for other issuers or audiences", root, all[0].node, other.node),
				"name one of them, for example --root %s", filepath.Join(root, all[0].node))
		}
	}
	return all, nil
}

// newSAServer takes the flags by their meaning in kube-apiserver, whose issuers
// are a list and whose audiences are separated by commas.
func newSAServer(n *trust.Node, c *trust.Component, keys proof.Keys, dir string) *saServer {
	a := &saServer{node: n.Name, issuers: c.Flags["service-account-issuer"]}
	for _, list := range c.Flags["api-audiences"] {
		a.audiences = append(a.audiences, strings.Split(list, ",")...)
	}
	a.takeKey(n, c, keys, dir)
	for _, file := range c.Flags["service-account-key-file"] {
		m := materialAt(n, file)
		if !m.OK() {
			a.verify = nil // whoever is not seen may be the one
			break
		}
		a.verify = append(a.verify, m.Keys...)
	}
	for _, c := range n.Components {
		file, _ := c.Flag("root-ca-file")
		if m := materialAt(n, file); c.Name == catalog.ControllerManager && m.OK() {
			a.ca = trust.EncodeCertificates(m.Certificates...)
		}
	}
	return a
}

func (a *saServer) takeKey(n *trust.Node, c *trust.Component, keys proof.Keys, dir string) {
	file, ok := c.Flag("service-account-signing-key-file")
	endpoint, external := c.Flag("service-account-signing-endpoint")
	switch {
	case external:
		a.problem = fmt.Errorf("kube-apiserver has its tokens signed by whoever listens at %s (--service-account-signing-endpoint)", endpoint)
		return
	case !ok:
		a.problem = fmt.Errorf("kube-apiserver has no --service-account-signing-key-file")
		return
	}
	a.keyPath = filepath.Join(dir, file)
	m := materialAt(n, file)
	a.key = keys[trust.Place{Node: n.Name, Path: filepath.Clean(file)}]
	switch {
	case a.key != nil:
	case m == nil || m.State == trust.NotGiven:
		a.problem = fmt.Errorf("%s (--service-account-signing-key-file of kube-apiserver) does not exist", a.keyPath)
	default:
		a.problem = fmt.Errorf("%s (--service-account-signing-key-file of kube-apiserver): %s", a.keyPath, m.Reason)
	}
}

func materialAt(n *trust.Node, file string) *trust.Material {
	for _, m := range n.Materials {
		if file != "" && m.Place.Path == filepath.Clean(file) && m.Place.Field == "" {
			return m
		}
	}
	return nil
}

func (a *saServer) signingKey() (crypto.Signer, error) {
	if a.key != nil {
		return a.key, nil
	}
	hint := "name the key with --key FILE or --key kms:NAME, or ask the cluster: leave --root out"
	if strings.Contains(a.problem.Error(), "permission denied") {
		hint = "run it with sudo"
	}
	return nil, advise(a.problem, "%s", hint)
}

// agrees tells whether two make tokens that are alike, with one key where that
// matters.
func (a *saServer) agrees(b *saServer, byKey bool) bool {
	same := a.key == nil && b.key == nil || a.key != nil && b.key != nil && trust.SameKey(a.key.Public(), b.key.Public())
	return (same || !byKey) && slices.Equal(a.issuers, b.issuers) && slices.Equal(a.audiences, b.audiences)
}

// verifies tells whether the API server knows a key, as far as that is known.
func (a *saServer) verifies(public crypto.PublicKey) bool {
	return len(a.verify) == 0 || slices.ContainsFunc(a.verify, func(k crypto.PublicKey) bool { return trust.SameKey(k, public) })
}
