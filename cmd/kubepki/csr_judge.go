package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// judgeFlags say by what a request is judged.
type judgeFlags struct {
	policy    policyFlags
	nodes     string
	authority string
}

func (f *judgeFlags) add(flags *pflag.FlagSet) {
	f.policy.add(flags)
	flags.StringVar(&f.nodes, "nodes", "", "FILE with the cluster's Nodes, as kubectl get nodes -o yaml prints them (- is standard input)")
	flags.StringVar(&f.authority, "certificate-authority", "", "FILE with authorities in PEM, whose keys no request may have (default: those of the kubeconfig)")
}

// given tells whether any of the flags is set.
func (f *judgeFlags) given(flags *pflag.FlagSet) bool {
	return slices.ContainsFunc(append([]string{"nodes", "certificate-authority"}, policyFlagNames...), flags.Changed)
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
	if j.policy, err = f.policy.read(s); err != nil {
		return nil, err
	}
	if f.policy.given("nodes") {
		if j.facts.Nodes, err = readNodes(s, f.nodes); err != nil {
			return nil, err
		}
	}
	if f.policy.given("certificate-authority") {
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
	if err := j.ask(ctx, s, api); err != nil {
		return nil, err
	}
	return j, j.learn(ctx)
}

// ask reads what no node may claim and, where no file gives them, the nodes.
func (j *judge) ask(ctx context.Context, s streams, api *clusterAPI) error {
	var err error
	if j.facts.Cluster, _, err = kube.Cluster(ctx, j.client); err != nil {
		return adviseAPI(err, "")
	}
	if len(j.facts.Cluster.ServiceRanges)+len(j.policy.Cluster.ServiceRanges) == 0 {
		fmt.Fprintf(s.err, "kubepki: note: the cluster does not say its service range: %s is taken, or what --service-cidr says\n", catalog.DefaultServiceSubnet)
	}
	if server, err := url.Parse(api.config.Host); err == nil {
		j.facts.Cluster.Endpoints = append(j.facts.Cluster.Endpoints, server.Hostname())
	}
	if j.facts.Nodes != nil {
		return nil
	}
	nodes, err := kube.ListNodes(ctx, j.client)
	if err != nil {
		return adviseAPI(err, "without the right to list nodes, give them with --nodes FILE")
	}
	j.facts.Nodes = csr.NewInventory(nodes...)
	return nil
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

// lookUp asks DNS, where the policy wants that. What DNS does not answer for is
// left out.
func lookUp(ctx context.Context, names []string) map[string][]netip.Addr {
	resolved := map[string][]netip.Addr{}
	ask := controller.ResolveWith(nil)
	for _, name := range names {
		if addresses, err := ask(ctx, name); err == nil {
			resolved[name] = addresses
		}
	}
	return resolved
}

// assume takes for granted what nobody can be asked for without a cluster, and
// says so once.
func (j *judge) assume(s streams) {
	fmt.Fprintln(s.err, "kubepki: note: no cluster is asked: the requester is taken for who the file says, with the rights that kubeadm's bindings give")
	if j.facts.Nodes == nil {
		fmt.Fprintln(s.err, "kubepki: note: without --nodes the cluster is taken to have no Nodes yet")
		j.facts.Nodes = csr.NewInventory()
	}
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
