package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

// judgeFlags say by what a request is judged.
type judgeFlags struct {
	policy    string
	nodes     string
	at        string
	services  []string
	domain    string
	endpoints []string
}

func (f *judgeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.policy, "policy", "", "policy FILE (default: the built-in policy, docs/csr-policy.md)")
	flags.StringVar(&f.nodes, "nodes", "", "FILE with the cluster's Nodes, as kubectl get nodes -o yaml prints them (- is standard input)")
	flags.StringVar(&f.at, "at", "", "judge as if it were this time (RFC 3339, or a date)")
	flags.StringSliceVar(&f.services, "service-cidr", nil, "service address range that no node may claim; repeatable (default: the cluster's, or 10.96.0.0/12)")
	flags.StringVar(&f.domain, "cluster-domain", "", "DNS domain of the cluster (default cluster.local)")
	flags.StringSliceVar(&f.endpoints, "api-endpoint", nil, "name or address of the API server that no worker may claim; repeatable")
}

// judge decides on requests with what is known of a cluster.
type judge struct {
	policy csr.Policy
	facts  csr.Facts
	at     time.Time
	// client asks the cluster who may what; nil assumes kubeadm's bindings.
	client kubernetes.Interface
}

// offline makes a judge of what the flags give.
func (f *judgeFlags) offline(s streams) (*judge, error) {
	j := &judge{at: time.Now()}
	var err error
	if f.at != "" {
		if j.at, err = parseTime(f.at); err != nil {
			return nil, usagef("--at: %w", err)
		}
	}
	if j.facts.Cluster, err = f.cluster(); err != nil {
		return nil, err
	}
	if j.policy, err = readPolicy(s, f.policy); err != nil {
		return nil, err
	}
	if f.nodes != "" {
		if j.facts.Nodes, err = readNodes(s, f.nodes); err != nil {
			return nil, err
		}
	}
	// A person who looks does so later than a kubelet's first minute.
	j.facts.Landed = true
	return j, nil
}

// online makes a judge that also asks the cluster.
func (f *judgeFlags) online(ctx context.Context, s streams, client kubernetes.Interface) (*judge, error) {
	j, err := f.offline(s)
	if err != nil {
		return nil, err
	}
	j.client = client
	if j.facts.Nodes == nil {
		nodes, err := kube.ListNodes(ctx, client)
		if err != nil {
			return nil, adviseAPI(err, "without the right to list nodes, give them with --nodes FILE")
		}
		j.facts.Nodes = csr.NewInventory(nodes...)
	}
	return j, nil
}

func (f *judgeFlags) cluster() (csr.Cluster, error) {
	c := csr.Cluster{Domain: f.domain, Endpoints: f.endpoints}
	if c.Domain == "" {
		c.Domain = catalog.DefaultDNSDomain
	}
	ranges := f.services
	if len(ranges) == 0 {
		ranges = []string{catalog.DefaultServiceSubnet}
	}
	for _, text := range ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return c, usagef("--service-cidr %q is not a range like 10.96.0.0/12", text)
		}
		c.ServiceRanges = append(c.ServiceRanges, p.Masked())
	}
	return c, nil
}

func readNodes(s streams, name string) (*csr.Inventory, error) {
	data, err := readObjects(s, name)
	if err != nil {
		return nil, fmt.Errorf("--nodes: %w", err)
	}
	nodes, err := kube.ParseNodes(data)
	if err != nil {
		return nil, advise(fmt.Errorf("--nodes %s: %w", name, err), "make it with: kubectl get nodes -o yaml > nodes.yaml")
	}
	return csr.NewInventory(nodes...), nil
}

// review decides on one request.
func (j *judge) review(ctx context.Context, r csr.Request) (csr.Review, error) {
	facts := j.facts
	if j.client == nil {
		facts.Authorized = j.assumed(r)
	} else {
		var err error
		if facts.Authorized, err = kube.Authorized(ctx, j.client, r); err != nil {
			return csr.Review{}, adviseAPI(err, "give yourself the right to create subjectaccessreviews of authorization.k8s.io")
		}
	}
	return csr.Decide(r, facts, j.policy, j.at), nil
}

// assumed is who may what by the bindings that kubeadm makes
// (k/k cmd/kubeadm/app/phases/bootstraptoken/node/tlsbootstrap.go).
func (j *judge) assumed(r csr.Request) csr.Answer {
	may := false
	switch csr.Permission(r) {
	case "":
		return csr.Unknown
	case "nodeclient":
		may = slices.ContainsFunc(j.policy.BootstrapGroups, func(g string) bool { return slices.Contains(r.Groups, g) })
	case "selfnodeclient":
		may = slices.Contains(r.Groups, nodeGroup)
	}
	if may {
		return csr.Yes
	}
	return csr.No
}

// sayAssumed tells once what is taken for granted without a cluster.
func sayAssumed(s streams) {
	fmt.Fprintln(s.err, "kubepki: note: no cluster is asked: the requester is taken for who the file says, with the rights that kubeadm's bindings give")
}

func sayReview(s streams, name string, r csr.Review) {
	fmt.Fprintf(s.err, "%s: the policy says %s\n", report.Plain(name), r.Verdict)
	for _, reason := range r.Reasons {
		fmt.Fprintf(s.err, "  %s: %s\n", report.Plain(reason.ID), report.Plain(reason.Message))
	}
}
