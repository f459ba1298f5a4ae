package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/approve"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/objects"
)

// setupPause is before another attempt: an API server that has just become
// ready may still refuse.
const setupPause = time.Second

// setUp does what kubeadm does once the control plane runs, until it is done.
func (s *Supervisor) setUp(ctx context.Context) {
	if err := s.awaitServing(ctx); err != nil {
		return
	}
	close(s.serving)
	for {
		err := s.setUpOnce(ctx)
		s.say(err)
		if err == nil {
			close(s.joining)
			var finishing sync.WaitGroup
			finishing.Go(func() { s.finishJoins(ctx) })
			if s.wanted.Signer != cluster.KubepkiSigner {
				finishing.Go(func() { s.approve(ctx) })
			}
			finishing.Go(func() { s.runLight(ctx) })
			s.untilDone(ctx, "label the nodes", s.labelNodes)
			finishing.Wait()
			return
		}
		s.Log.Error("set up the cluster", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(setupPause):
		}
	}
}

// say keeps what the set-up has come to.
func (s *Supervisor) say(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setup, s.setupEnd = "", err == nil
	if err != nil {
		s.setup = err.Error()
	}
}

// awaitServing waits until an API server is ready.
func (s *Supervisor) awaitServing(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{}, len(s.units))
	for _, u := range s.find("kube-apiserver") {
		go func() {
			if u.await(ctx, func() bool { return u.ready }) == nil {
				ready <- struct{}{}
			}
		}()
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Supervisor) setUpOnce(ctx context.Context) error {
	token, err := bootstraputil.GenerateBootstrapToken()
	if err != nil {
		return err
	}
	config, err := s.admin()
	if err != nil {
		return err
	}
	if err := objects.Apply(ctx, config, s.values); err != nil {
		return err
	}
	if err := s.bootstrapToken(ctx, token); err != nil {
		return err
	}
	authority, err := os.ReadFile(filepath.Join(s.Folder.Root(s.spec.ControlPlanes[0].Name), s.spec.CertificatesDir, "ca.crt"))
	if err != nil {
		return err
	}
	s.join = &kubelet.Join{Server: s.spec.EndpointURL(&s.spec.ControlPlanes[0]), Authority: authority, Token: token}
	return nil
}

// untilDone repeats something until it is done or the context ends.
func (s *Supervisor) untilDone(ctx context.Context, what string, do func(context.Context) error) {
	for {
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.Log.Info(what, "not-yet", err)
		select {
		case <-ctx.Done():
		case <-time.After(setupPause):
		}
	}
}

// approve approves the serving certificates of the lab's kubelets.
func (s *Supervisor) approve(ctx context.Context) {
	s.untilDone(ctx, "approve serving certificates", func(ctx context.Context) error {
		config, err := s.admin()
		if err != nil {
			return err
		}
		config.Timeout = 0 // it watches
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return approve.Run(ctx, client, s.lookup, s.Log)
	})
}

// lookup tells the addresses of a node of the lab.
func (s *Supervisor) lookup(name string) ([]netip.Addr, bool) {
	for _, m := range s.machines {
		if m.Name == name && m.Kubelet {
			return []netip.Addr{m.Address}, true
		}
	}
	for _, l := range s.wanted.Light() {
		if l.Name == name {
			return []netip.Addr{l.Address}, true
		}
	}
	return nil, false
}

// finishJoins does what kubeadm does when a node's kubelet has its certificate:
// see [kubelet.Finish].
func (s *Supervisor) finishJoins(ctx context.Context) {
	left := s.machines
	for {
		left = slices.DeleteFunc(slices.Clone(left), func(m cluster.Machine) bool {
			if !m.Kubelet {
				return true
			}
			joined, err := kubelet.Finish(s.nodes[m.Name].Root)
			if err != nil {
				s.Log.Error("join", "node", m.Name, "error", err)
			}
			return joined
		})
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(setupPause):
		}
	}
}

// bootstrapToken lets the real kubeadm make the token, the rules by which nodes
// may join with it, and the ConfigMap cluster-info.
func (s *Supervisor) bootstrapToken(ctx context.Context, token string) error {
	plane := s.spec.ControlPlanes[0]
	node, root := s.nodes[plane.Name], "/"
	if s.wanted.Loopback {
		root = node.Root
	}
	// kubeadm needs the address for nothing here, and would refuse loopback.
	config := fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: %s
  description: of kubepki-lab
  ttl: 24h0m0s
localAPIEndpoint: {advertiseAddress: 192.0.2.1}
nodeRegistration: {name: %s, criSocket: "unix:///run/none.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %s
certificatesDir: %s
`, token, plane.Name, s.spec.KubernetesVersion, filepath.Join(root, s.spec.CertificatesDir))
	const name = "etc/kubernetes/kubepki-lab.yaml"
	file := filepath.Join(node.Root, name)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	p, err := node.Run(&lab.Manifest{Name: "kubeadm", Command: []string{"kubeadm", "init", "phase", "bootstrap-token",
		"--config=" + filepath.Join(root, name), "--kubeconfig=" + filepath.Join(root, "etc/kubernetes/super-admin.conf"), "--skip-token-print"}})
	if err == nil {
		err = p.Succeeds(ctx)
	}
	return errors.Join(err, os.Remove(file))
}
