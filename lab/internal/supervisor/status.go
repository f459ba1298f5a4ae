package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// Status is what the lab is like: the answer to kubepki-lab status.
type Status struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"` // LabStatus
	Mode       string      `json:"mode"` // namespaces or loopback
	Started    time.Time   `json:"started"`
	Ready      bool        `json:"ready"`             // all that is wanted is ready
	Message    string      `json:"message,omitempty"` // what keeps the cluster from being set up
	Proxy      string      `json:"proxy,omitempty"`   // HOST:PORT outside of the lab
	Nodes      []Node      `json:"nodes"`
	Workloads  []Workload  `json:"workloads"`
	Components []Component `json:"components"`
}

// Node is what the Kubernetes API says of a node that runs a kubelet.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Ready   bool   `json:"ready"`
	Message string `json:"message,omitempty"` // why it is not ready
}

// Component is one line of a Status.
type Component struct {
	Node      string     `json:"node"`
	Component string     `json:"component"`
	PID       int        `json:"pid,omitempty"` // the supervisor says that of its own namespace
	State     string     `json:"state"`         // running, stopped, waiting or failing
	Ready     bool       `json:"ready"`
	Restarts  int        `json:"restarts"` // since the lab was started, by themselves
	Since     *time.Time `json:"since,omitempty"`
	Serving   *Serving   `json:"serving,omitempty"`
	Message   string     `json:"message,omitempty"`
}

// Serving is the certificate that a component presents now.
type Serving struct {
	Address  string    `json:"address"` // HOST:PORT, as seen from its node
	Serial   string    `json:"serial"`  // hexadecimal, as openssl prints it
	NotAfter time.Time `json:"notAfter"`
}

// handshakeWait is for one component to present its certificate.
const handshakeWait = 2 * time.Second

// status looks at everything now, in parallel.
func (s *Supervisor) status(ctx context.Context) *Status {
	answer := &Status{
		APIVersion: "kubepki.dev/v1alpha1", Kind: "LabStatus", Started: s.started,
		Components: make([]Component, len(s.units)),
	}
	answer.Mode = "namespaces"
	if s.wanted.Loopback {
		answer.Mode = "loopback"
	}
	if s.Proxy != nil {
		answer.Proxy = s.Proxy.Addr().String()
	}
	var looking sync.WaitGroup
	for i, u := range s.units {
		looking.Go(func() { answer.Components[i] = u.look(ctx) })
	}
	var pods []Component
	looking.Go(func() { pods = s.lookAtPods(ctx) })
	select {
	case <-s.joining:
		looking.Go(func() { answer.Workloads = s.lookAtWorkloads(ctx) })
	default: // nothing has been applied yet
	}
	looking.Go(func() { answer.Nodes = s.lookAtNodes(ctx) })
	looking.Wait()
	answer.Components = append(append(answer.Components, pods...), s.lookAtBalancer()...)
	s.mu.Lock()
	defer s.mu.Unlock()
	answer.Message, answer.Ready = s.setup, s.setupEnd
	for _, n := range answer.Nodes {
		answer.Ready = answer.Ready && (n.Ready || s.isStopped(n.Name))
	}
	for _, w := range answer.Workloads {
		answer.Ready = answer.Ready && w.Ready
	}
	for _, c := range answer.Components {
		answer.Ready = answer.Ready && (c.Ready || c.State == "stopped")
	}
	return answer
}

// lookAtBalancer is the line of the load balancer, if there is one. It has no
// process of its own.
func (s *Supervisor) lookAtBalancer() []Component {
	_, behind, ok := cluster.Endpoint(s.spec)
	if !ok {
		return nil
	}
	c := Component{Node: "lb", Component: "load-balancer", State: "running", Ready: slices.ContainsFunc(behind, s.apiserverReady)}
	if !c.Ready {
		c.Message = "no API server is ready"
	}
	return []Component{c}
}

// isStopped tells whether the node's kubelet is stopped on purpose.
func (s *Supervisor) isStopped(node string) bool {
	for _, u := range s.find(node + "/kubelet") {
		u.mu.Lock()
		defer u.mu.Unlock()
		return !u.wanted
	}
	return false
}

// look tells what the unit is like.
func (u *unit) look(ctx context.Context) Component {
	u.mu.Lock()
	c := Component{Node: u.node.Name, Component: u.component, Ready: u.ready, Restarts: u.restarts, Message: u.message}
	p := u.process
	switch {
	case p != nil:
		since := u.since
		c.State, c.PID, c.Since = "running", p.Pid(), &since
	case !u.wanted:
		c.State = "stopped"
	case u.restarts > 0:
		c.State = "failing"
	default:
		c.State = "waiting"
	}
	u.mu.Unlock()
	if p != nil {
		c.Serving = u.serving(ctx, p.Manifest)
	}
	return c
}

// serving asks the component for its certificate.
func (u *unit) serving(ctx context.Context, m *lab.Manifest) *Serving {
	address := u.serves
	if address == "" {
		address = servingAddress(u.component, m)
	}
	if address == "" {
		return nil
	}
	return presented(ctx, u.node, address)
}

// presented is the certificate that a server presents to a caller on a node.
func presented(ctx context.Context, node *lab.Node, address string) *Serving {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	conn, err := node.Dial(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	var leaf *x509.Certificate
	client := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // what is presented is shown, not trusted
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf = state.PeerCertificates[0]
			return nil
		},
	})
	// The server may refuse who shows no certificate: its own has come by then.
	if err := client.HandshakeContext(ctx); err != nil && leaf == nil {
		return nil
	}
	return &Serving{Address: address, Serial: fmt.Sprintf("%X", leaf.SerialNumber), NotAfter: leaf.NotAfter}
}

// servingAddress is where a component serves TLS, seen from its node.
func servingAddress(component string, m *lab.Manifest) string {
	if component == "etcd" { // its probe is plain HTTP, by kubeadm's choice
		return firstTLS(flag(m, "listen-client-urls"))
	}
	if m.Probe == nil || m.Probe.Scheme != "https" {
		return ""
	}
	return m.Probe.Host
}

// firstTLS is the address of the first https URL of a list.
func firstTLS(urls string) string {
	for u := range strings.SplitSeq(urls, ",") {
		if address, ok := strings.CutPrefix(u, "https://"); ok {
			return address
		}
	}
	return ""
}

// flag is the value of a flag in the command of a component.
func flag(m *lab.Manifest, name string) string {
	for _, argument := range m.Command {
		if value, ok := strings.CutPrefix(argument, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}
