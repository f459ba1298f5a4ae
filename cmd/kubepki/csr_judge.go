package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// judgeFlags say by what a request is judged.
type judgeFlags struct {
	policy    string
	nodes     string
	authority string
	services  []string
	domain    string
	endpoints []string
}

func (f *judgeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.policy, "policy", "", "policy FILE (default: the built-in policy, docs/csr-policy.md)")
	flags.StringVar(&f.nodes, "nodes", "", "FILE with the cluster's Nodes, as kubectl get nodes -o yaml prints them (- is standard input)")
	flags.StringSliceVar(&f.services, "service-cidr", nil, "service address range that no node may claim; repeatable (default "+catalog.DefaultServiceSubnet+")")
	flags.StringVar(&f.domain, "cluster-domain", "", "DNS domain of the cluster (default "+catalog.DefaultDNSDomain+")")
	flags.StringSliceVar(&f.endpoints, "api-endpoint", nil, "name or address of the API server that no worker may claim; repeatable")
	flags.StringVar(&f.authority, "certificate-authority", "", "FILE with authorities in PEM, whose keys no request may have (default: those of the kubeconfig)")
}

// given tells whether any of the flags is set.
func (f *judgeFlags) given(flags *pflag.FlagSet) bool {
	return slices.ContainsFunc([]string{"policy", "nodes", "service-cidr", "cluster-domain", "api-endpoint", "certificate-authority"}, flags.Changed)
}

// judge decides on requests with what is known of a cluster.
type judge struct {
	policy csr.Policy
	facts  csr.Facts
	keys   kube.Keys
	// client asks the cluster who may what; nil assumes kubeadm's bindings.
	client kubernetes.Interface
}

// offline makes a judge of what the flags give.
func (f *judgeFlags) offline(s streams) (*judge, error) {
	j := &judge{keys: kube.Keys{}}
	var err error
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
	if f.authority != "" {
		data, err := readInput(s, f.authority)
		if err != nil {
			return nil, fmt.Errorf("--certificate-authority: %w", err)
		}
		if err := j.addAuthorities(data); err != nil {
			return nil, fmt.Errorf("--certificate-authority %s: %w", f.authority, err)
		}
	}
	// Whoever looks by hand does so later than a kubelet's first minute.
	j.facts.Landed, j.facts.Keys = true, j.keys.Of
	return j, nil
}

// online makes a judge that also asks the cluster: for its nodes, for the keys
// that have been certified, and for who may what.
func (f *judgeFlags) online(ctx context.Context, s streams, api *clusterAPI) (*judge, error) {
	j, err := f.offline(s)
	if err != nil {
		return nil, err
	}
	j.client = api.client
	if f.authority == "" {
		data, err := api.authorities()
		if err == nil && len(data) > 0 {
			err = j.addAuthorities(data)
		}
		if err != nil {
			return nil, fmt.Errorf("certificate-authority of the kubeconfig: %w", err)
		}
	}
	if server, err := url.Parse(api.config.Host); err == nil {
		j.facts.Cluster.Endpoints = append(j.facts.Cluster.Endpoints, server.Hostname())
	}
	if j.facts.Nodes == nil {
		nodes, err := kube.ListNodes(ctx, j.client)
		if err != nil {
			return nil, adviseAPI(err, "without the right to list nodes, give them with --nodes FILE")
		}
		j.facts.Nodes = csr.NewInventory(nodes...)
	}
	return j, j.learn(ctx)
}

// learn reads which keys have been certified, as far as requests still show it.
func (j *judge) learn(ctx context.Context) error {
	err := kube.EachPage(ctx, j.client, "", func(page []csr.Request) error {
		for _, r := range page {
			j.keys.Add(r)
		}
		return nil
	})
	return adviseAPI(err, listRights)
}

func (j *judge) addAuthorities(data []byte) error {
	certificates, err := trust.ParseCertificates(data)
	for _, c := range certificates {
		j.keys.AddAuthority(c)
	}
	return err
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
			return c, usagef("--service-cidr %q is not a range like %s", text, catalog.DefaultServiceSubnet)
		}
		c.ServiceRanges = append(c.ServiceRanges, p.Masked())
	}
	if slices.Contains(f.endpoints, "") {
		return c, usagef("--api-endpoint names nothing")
	}
	return c, nil
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
	facts.Resolved = lookUp(ctx, csr.Lookups(r, j.policy))
	return csr.Decide(r, facts, j.policy), nil
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

// lookUp asks DNS, where the policy wants that. A name of which DNS says that
// it does not exist has no addresses; one that DNS does not answer for is absent.
func lookUp(ctx context.Context, names []string) map[string][]netip.Addr {
	if len(names) == 0 {
		return nil
	}
	resolved := map[string][]netip.Addr{}
	for _, name := range names {
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name+".")
		var failed *net.DNSError
		if err != nil && (!errors.As(err, &failed) || !failed.IsNotFound) {
			continue
		}
		resolved[name] = nil
		for _, a := range addresses {
			resolved[name] = append(resolved[name], a.Unmap())
		}
	}
	return resolved
}

// sayAssumed tells once what is taken for granted without a cluster.
func sayAssumed(s streams) {
	fmt.Fprintln(s.err, "kubepki: note: no cluster is asked: the requester is taken for who the file says, with the rights that kubeadm's bindings give")
}

// sayReview tells what the policy says of a request.
func sayReview(s streams, name string, r csr.Review) {
	fmt.Fprintf(s.err, "%s: the policy says %s\n", report.Plain(name), r.Verdict)
	for _, reason := range r.Reasons {
		fmt.Fprintf(s.err, "  %s: %s\n", report.Plain(reason.ID), report.Plain(reason.Message))
	}
}

// authorities returns the PEM by which the API server is verified, nil where
// the machine's own authorities do.
func (a *clusterAPI) authorities() ([]byte, error) {
	if len(a.config.CAData) > 0 || a.config.CAFile == "" {
		return a.config.CAData, nil
	}
	return os.ReadFile(a.config.CAFile)
}
