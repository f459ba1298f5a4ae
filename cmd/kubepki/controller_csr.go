package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/policy"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
)

// csrLoopFlags are those of the part "csr".
type csrLoopFlags struct {
	approve, sign []string
	clean         bool
	policy        string
	workers       int
	issuance      string
	ranges        []string
	domain        string
	endpoints     []string
	groups        []string
}

func (o *csrLoopFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.approve, "approve", []string{"kube-apiserver-client-kubelet", "kubelet-serving"}, "built-in signers whose requests are decided; others only by a rule of --policy")
	f.StringSliceVar(&o.sign, "sign", []string{"kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"}, "built-in signers whose approved requests are signed")
	f.BoolVar(&o.clean, "clean", true, "remove old requests, as kube-controller-manager does")
	f.StringVar(&o.policy, "policy", "", "file with a policy (YAML)")
	f.IntVar(&o.workers, "workers", controller.DefaultWorkers, "requests in work at the same time")
	f.StringVar(&o.issuance, "issuance-log", "", "file to which a line is appended for each certificate")
	f.StringSliceVar(&o.ranges, "service-cluster-ip-range", nil, "ranges of service addresses, beside those that the cluster says")
	f.StringVar(&o.domain, "cluster-domain", "", "domain of the cluster (default: what the cluster says, else cluster.local)")
	f.StringSliceVar(&o.endpoints, "api-server-endpoint", nil, "names and addresses of the API server, beside those that the cluster says")
	f.StringSliceVar(&o.groups, "bootstrap-groups", nil, "groups of those who ask for the first certificates of nodes (default system:bootstrappers)")
}

// readPolicy reads the policy and puts the settings of the flags into it.
func (o *csrLoopFlags) readPolicy() (csr.Policy, error) {
	p := csr.DefaultPolicy()
	if o.policy != "" {
		data, err := os.ReadFile(o.policy)
		if err != nil {
			return p, err
		}
		dir := filepath.Dir(o.policy)
		read := func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			return os.ReadFile(name)
		}
		if p, err = policy.ParseWith(data, read); err != nil {
			return p, fmt.Errorf("%s: %w", o.policy, err)
		}
	}
	for _, text := range o.ranges {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return p, usagef("--service-cluster-ip-range: %q is no range: use 10.96.0.0/12", text)
		}
		p.Cluster.ServiceRanges = append(p.Cluster.ServiceRanges, r)
	}
	if o.domain != "" {
		p.Cluster.Domain = o.domain
	}
	p.Cluster.Endpoints = append(p.Cluster.Endpoints, o.endpoints...)
	if len(o.groups) > 0 {
		p.BootstrapGroups = o.groups
	}
	return p, nil
}

// csrPart is what the part "csr" needs in each term.
type csrPart struct {
	approve []string
	sources map[string]signers.Source
	policy  csr.Policy
	log     *controller.IssuanceLog
}

func (o *controllerOptions) prepareCSR(r *controllerRun) (*csrPart, error) {
	var p csrPart
	var err error
	if p.approve, err = longSignerNames("approve", o.csr.approve); err != nil {
		return nil, err
	}
	sign, err := longSignerNames("sign", o.csr.sign)
	if err != nil {
		return nil, err
	}
	if o.csr.workers < 1 {
		return nil, usagef("--workers: %d is less than 1", o.csr.workers)
	}
	if p.policy, err = o.csr.readPolicy(); err != nil {
		return nil, err
	}
	for _, rule := range p.policy.Rules {
		if !slices.Contains(p.approve, rule.SignerName) {
			p.approve = append(p.approve, rule.SignerName)
		}
	}
	if p.policy.MaxDuration[""] == 0 {
		if p.policy.MaxDuration == nil {
			p.policy.MaxDuration = map[string]time.Duration{}
		}
		p.policy.MaxDuration[""] = o.signing.duration
	}
	if p.sources, err = o.signing.sources(sign, r.toldAuthority); err != nil {
		return nil, err
	}
	if o.csr.issuance != "" {
		if p.log, err = controller.OpenIssuanceLog(o.csr.issuance); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// csrLoops makes the loops of the part "csr".
func (r *controllerRun) csrLoops() ([]controller.Loop, error) {
	facts := &controller.ClusterFacts{Client: r.client, Log: r.log}
	loop := controller.NewCSR(controller.CSROptions{
		Client: r.client, Approve: r.csr.approve, Sources: r.csr.sources, Policy: r.csr.policy, Cluster: facts.Get,
		Resolve: controller.ResolveWith(nil), Workers: r.o.csr.workers, Authorities: r.authorities(),
		Log: r.log, Metrics: r.metrics, Events: r.events, Issuance: r.csr.log,
	})
	r.current.Store(loop)
	loops := []controller.Loop{facts, loop}
	if r.o.csr.clean {
		loops = append(loops, controller.NewCleaner(loop))
	}
	return loops, nil
}
