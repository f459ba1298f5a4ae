package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/light"
)

const (
	// namespace is where traffic is written.
	namespace = "lab-load"
	// label is on everything that a run makes; its value is the run's id.
	label = "lab.kubepki.dev/load"

	askAgain = 100 * time.Millisecond // of something that takes its time
)

// site is what the streams know of the lab that they call, and what was made in
// it for them.
type site struct {
	folder cluster.Folder
	spec   *catalog.Cluster
	// loopback tells that nodes have no network of their own.
	loopback bool
	id       string // of this run: in the names of all that it makes

	admin     *user // for preparing and tidying up
	nodes     []kubelet
	pods      map[string]probePod // by node
	watched   *corev1.ConfigMap
	token     bootstrapToken
	notHere   []NotHere
	madeSpace bool // the namespace was not there
	extended  bool // there is an extension API server
}

// kubelet is a node that has joined.
type kubelet struct {
	name    string
	address netip.Addr
	labels  map[string]string
}

func newSite(f cluster.Folder) (*site, error) {
	wanted, err := f.Wanted()
	if err != nil {
		return nil, err
	}
	spec, err := wanted.Cluster()
	if err != nil {
		return nil, err
	}
	s := &site{folder: f, spec: spec, loopback: wanted.Loopback, id: strings.ToLower(rand.Text()[:6]), pods: map[string]probePod{}}
	s.admin = s.administrator()
	return s, nil
}

func (s *site) close() { s.admin.close() }

// administrator is a client of its own with the administrator's kubeconfig.
func (s *site) administrator() *user { return &user{file: s.folder.AdminConf(s.spec)} }

// visitor is an administrator who makes a connection for each call.
func (s *site) visitor() *user { return &user{file: s.folder.AdminConf(s.spec), fresh: true} }

// pki is a file of a node's PKI folder, as a path here.
func (s *site) pki(node, file string) string {
	return filepath.Join(s.folder.Root(node), s.spec.CertificatesDir, file)
}

// meta names an object of this run.
func (s *site) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: "load-" + s.id + "-" + name, Namespace: namespace, Labels: map[string]string{label: s.id}}
}

// absent notes a stream that has no link here.
func (s *site) absent(stream string, link int, why string) {
	s.notHere = append(s.notHere, NotHere{Stream: stream, Link: link, Why: why})
}

// findNodes lists the nodes that have a kubelet. Those that nobody has seen join
// are named, so that their streams are not missed in silence.
func (s *site) findNodes(ctx context.Context, c *clients) error {
	nodes, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	joined := map[string]bool{}
	for _, n := range nodes.Items {
		joined[n.Name] = true
		if _, ok := n.Labels[light.Taint]; ok {
			continue // it has neither a real kubelet nor pods
		}
		address, err := nodeAddress(&n)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, kubelet{n.Name, address, n.Labels})
		s.pods[n.Name] = probePod{s.meta("on-" + n.Name).Name, rand.Text()}
	}
	for _, w := range s.spec.Workers {
		if !joined[w.Name] {
			s.absent("kubelet/"+w.Name, 11, "the node has not joined")
		}
	}
	return nil
}

func nodeAddress(n *corev1.Node) (netip.Addr, error) {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return netip.ParseAddr(a.Address)
		}
	}
	return netip.Addr{}, fmt.Errorf("node %s: status.addresses: no InternalIP", n.Name)
}

// exists tells whether an object is there, from the error of getting it.
func exists(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// eventually asks again and again until the answer is yes, which is no error, or
// the context ends; then the last answer is the error.
func eventually(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		var no notYet
		if !errors.As(err, &no) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// notYet is an answer that may become another by itself. Any other error is a
// failure at once.
type notYet string

func (n notYet) Error() string { return string(n) }
