package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/trust"
)

// carryFlags are about workers whose files cannot be had.
type carryFlags struct {
	names []string
	to    string
}

func (o *carryFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.names, "node", nil, "name of a worker whose files are not here, for which a kubelet.conf is made (repeatable; with --carry-to)")
	f.StringVar(&o.to, "carry-to", "", "folder for what is to be carried to the nodes of --node, a folder for each")
}

func (o *carryFlags) check() error {
	switch {
	case len(o.names) > 0 && o.to == "":
		return usagef("--node: say with --carry-to where the files for it shall be put")
	case o.to != "" && len(o.names) == 0:
		return usagef("--carry-to: say with --node for whom")
	}
	for i, name := range o.names {
		switch {
		case !isNodeName(name):
			return usagef("--node: %q is not a node name: lower-case letters, digits, - and . (RFC 1123)", name)
		case slices.Contains(o.names[:i], name):
			return usagef("--node: %s is there twice", name)
		}
	}
	return nil
}

// carriedNode is what is made for a worker that is not here.
type carriedNode struct {
	Node  string   `json:"node"`
	Files []string `json:"files"` // on this machine
	Run   string   `json:"run"`   // on the node, beside what was carried
	root  string   // of the control plane that signs
	ca    []byte
	there bool // an earlier run made it
}

// make plans what is carried; it is made when the authorities stand on disk.
func (o *carryFlags) make(_ context.Context, r *recovered) ([]carriedNode, error) {
	var all []carriedNode
	if len(o.names) == 0 {
		return nil, nil
	}
	root, at, err := signingRoot(r)
	if err != nil {
		return nil, err
	}
	m := r.plan.Graph.Material(at)
	for _, name := range o.names {
		if r.hasNode(name) {
			return nil, usagef("--node %s: its files are here: what it needs is put into them", name)
		}
		c := carriedNode{Node: name, root: root, ca: trust.EncodeCertificates(m.Certificates...)}
		c.Files = []string{filepath.Join(o.to, name, catalog.Conf("kubelet.conf")), filepath.Join(o.to, name, catalog.KubernetesDir, "pki/ca.crt")}
		c.Run = fmt.Sprintf("cp -R %s/etc / && rm -f %s/pki/kubelet.crt %s/pki/kubelet.key && systemctl restart kubelet", name, catalog.KubeletDir, catalog.KubeletDir)
		c.there = madeBefore(c.Files[0], r.clock.Now, m)
		if _, err := os.Lstat(c.Files[0]); err == nil && !c.there {
			return nil, advise(fmt.Errorf("%s is there and does not serve", c.Files[0]), "move it away")
		}
		all = append(all, c)
	}
	return all, nil
}

// signingRoot is a control plane whose authority can sign for kubelets, and its ca.crt.
func signingRoot(r *recovered) (string, trust.Place, error) {
	for _, a := range r.plan.Graph.Authorities {
		dir, ok := r.nodes.Dirs[a.Node]
		if a.Name == catalog.ClusterCA && ok && r.nodes.Keys[a.Key] != nil && r.plan.Graph.Material(a.Certificate).OK() {
			return dir, a.Certificate, nil
		}
	}
	return "", trust.Place{}, advise(fmt.Errorf("--node: no key of the cluster's authority is at hand"), "run it on a control-plane node, or with --root NAME=DIR for one")
}

// madeBefore tells whether a kubeconfig is there whose certificate serves.
func madeBefore(file string, now time.Time, authority *trust.Material) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	k, materials, _ := layout.ParseKubeconfig(trust.Place{Path: file}, data)
	i := slices.IndexFunc(materials, func(m *trust.Material) bool { return m.Place == k.Certificate })
	if k.State != trust.Present || i < 0 {
		return false
	}
	leaf := materials[i].Leaf()
	return leaf != nil && now.Before(leaf.NotAfter) && slices.ContainsFunc(authority.Certificates, func(c *x509.Certificate) bool { return trust.SignedBy(leaf, c) })
}

// write makes the kubeconfigs as kubepki kubeconfig node does, and puts the authority
// beside each.
func (o *carryFlags) write(ctx context.Context, all []carriedNode) error {
	for _, c := range all {
		for _, file := range c.Files {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
		}
		if !c.there {
			var talk bytes.Buffer
			command := newKubeconfigNodeCommand(streams{in: strings.NewReader(""), out: io.Discard, err: &talk})
			command.SetArgs([]string{c.Node, "--root", c.root, "--file", c.Files[0]})
			command.SilenceUsage, command.SilenceErrors = true, true
			if err := command.ExecuteContext(ctx); err != nil {
				return fmt.Errorf("--node %s: %w", c.Node, err)
			}
		}
		if err := writePublic(ctx, c.Files[1], c.ca); err != nil {
			return err
		}
	}
	return nil
}

// writePublic writes a file that has no secret, unless it is there as it shall be.
func writePublic(ctx context.Context, file string, data []byte) error {
	if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, data) {
		return nil
	}
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	return writeNew(ctx, filepath.Dir(file), []newFile{{filepath.Base(file), data, 0o644}}, false)
}

// timesOfServers asks the API servers that kubeconfigs name what time it is. Nothing is
// verified, for much may be over, and nothing is believed of it but as a reason to ask.
func timesOfServers(ctx context.Context, g *trust.Graph, timeout time.Duration) []recovery.Clue {
	var servers []string
	for i := range g.Nodes {
		for _, k := range g.Nodes[i].Kubeconfigs {
			if strings.HasPrefix(k.Server, "https://") && !slices.Contains(servers, k.Server) {
				servers = append(servers, k.Server)
			}
		}
	}
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // no secret is sent, and the answer decides nothing
	}}
	defer client.CloseIdleConnections()
	answers := make([]*recovery.Clue, len(servers))
	var wait sync.WaitGroup
	for i, server := range servers[:min(len(servers), manyServers)] {
		wait.Go(func() { answers[i] = timeOf(ctx, client, server) })
	}
	wait.Wait()
	var clues []recovery.Clue
	for _, c := range answers {
		if c != nil {
			clues = append(clues, *c)
		}
	}
	return clues
}

// manyServers bounds how many are asked.
const manyServers = 16

func timeOf(ctx context.Context, client *http.Client, server string) *recovery.Clue {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/healthz", nil)
	if err != nil {
		return nil
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil // nobody is there: most are not, when a cluster is to be recovered
	}
	_ = answer.Body.Close()
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return nil
	}
	return &recovery.Clue{Time: at, Sign: recovery.Answered, Place: trust.Place{Path: server}}
}
