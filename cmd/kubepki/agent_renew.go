package main

import (
	"crypto"
	"crypto/rand"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/join"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// agentRenewFlags say what is made anew, and when.
type agentRenewFlags struct {
	what     string
	at       string
	reuseKey bool
	lease    string
	span     agent.Span
}

func (r *agentRenewFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.what, "renew", "none", "what is made anew: none, or due")
	f.StringVar(&r.at, "renew-at", "70-90", "when it is due, in percent of its life: each certificate at a moment of its own within")
	f.BoolVar(&r.reuseKey, "reuse-key", false, "keep private keys instead of making new ones")
	f.StringVar(&r.lease, "lease-namespace", "kube-system", "namespace of the Lease kubepki-agent, by which nodes take turns with --cluster-kubeconfig")
}

func (r *agentRenewFlags) renews() bool { return r.what == "due" }

func (r *agentRenewFlags) check() (err error) {
	if r.what != "none" && r.what != "due" {
		return usagef("--renew %q is neither none nor due", r.what)
	}
	if r.span, err = agent.ParseSpan(r.at); err != nil {
		return usagef("--renew-at: %w", err)
	}
	return nil
}

// leasePatience is for how long a node waits for its turn before it looks again at
// what else there is.
const leasePatience = 30 * time.Second

// options are nil where nothing is made anew.
func (r *agentRenewFlags) options(nodeName string, client kubernetes.Interface, log *slog.Logger) (*agent.Renewal, error) {
	if !r.renews() {
		return nil, nil
	}
	if nodeName == "" {
		var err error
		if nodeName, err = join.DefaultNodeName(); err != nil {
			return nil, err
		}
	}
	o := &agent.Renewal{Span: r.span, Plan: r.plan}
	if client != nil {
		o.Turn = &agent.Lease{
			Client: client, Namespace: r.lease, Name: "kubepki-agent", Identity: nodeName + "_" + strings.ToLower(rand.Text()[:8]),
			Patience: leasePatience, Else: &agent.Spread{Node: nodeName, Clock: agent.MachineClock{}}, Log: log,
		}
	}
	return o, nil
}

func (r *agentRenewFlags) plan(n *apply.Nodes, findings []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
	return renew.Plan(n.Graph, findings, targets, renew.Options{At: at, ReuseKey: r.reuseKey, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
}

// agentClusterFlags say how the agent reaches the cluster's API, if at all.
type agentClusterFlags struct{ kubeconfig string }

// inCluster stands for a pod's own account.
const inCluster = "in-cluster"

func (c *agentClusterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "cluster-kubeconfig", "", "kubeconfig by which the agent calls the API server, or in-cluster for its pod's own account (default: it does not call it)")
}

// config is nil where the API is not called.
func (c *agentClusterFlags) config() (*rest.Config, error) {
	var config *rest.Config
	var err error
	switch c.kubeconfig {
	case "":
		return nil, nil
	case inCluster:
		config, err = rest.InClusterConfig()
	default:
		config, err = kube.Access{Kubeconfig: c.kubeconfig}.Connect()
	}
	if err != nil {
		return nil, advise(err, "--cluster-kubeconfig names a kubeconfig, or is in-cluster in a pod with an account")
	}
	config.UserAgent = "kubepki-agent"
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
}

// client is nil where the API is not called.
func (c *agentClusterFlags) client() (kubernetes.Interface, error) {
	config, err := c.config()
	if config == nil || err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
