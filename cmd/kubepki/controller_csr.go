package main

import (
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/csr"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
)

// csrLoopFlags are those of the part "csr".
type csrLoopFlags struct {
	approve, sign []string
	clean         bool
	policy        policyFlags
	workers       int
	issuance      string
}

func (o *csrLoopFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.approve, "approve", []string{"kube-apiserver-client-kubelet", "kubelet-serving"}, "built-in signers whose requests are decided; others only by a rule of --policy")
	f.StringSliceVar(&o.sign, "sign", []string{"kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"}, "built-in signers whose approved requests are signed")
	f.BoolVar(&o.clean, "clean", true, "remove old requests, as kube-controller-manager does")
	o.policy.add(f)
	f.IntVar(&o.workers, "workers", controller.DefaultWorkers, "requests in work at the same time")
	f.StringVar(&o.issuance, "issuance-log", "", "file to which a line is appended for each certificate")
}

// csrPart is what the part "csr" needs in each term.
type csrPart struct {
	approve []string
	sources map[string]signers.Source
	policy  csr.Policy
	log     *controller.IssuanceLog
}

func (o *controllerOptions) prepareCSR(r *controllerRun) error {
	p := &r.csr
	var err error
	if p.approve, err = longSignerNames("approve", o.csr.approve); err != nil {
		return err
	}
	sign, err := longSignerNames("sign", o.csr.sign)
	if err != nil {
		return err
	}
	if o.csr.workers < 1 {
		return usagef("--workers: %d is less than 1", o.csr.workers)
	}
	if p.policy, err = o.csr.policy.read(r.streams); err != nil {
		return err
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
		return err
	}
	if o.csr.issuance != "" {
		if p.log, err = controller.OpenIssuanceLog(o.csr.issuance); err != nil {
			return err
		}
	}
	return nil
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
	for name, source := range r.csr.sources {
		if a, err := source.Authority(); err == nil { // signing says the error
			r.metrics.Authority(name, a.Certificate)
		}
	}
	loops := []controller.Loop{facts, loop}
	if r.o.csr.clean {
		loops = append(loops, controller.NewCleaner(loop))
	}
	return loops, nil
}
