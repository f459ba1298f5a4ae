package main

import (
	"context"
	"fmt"
	"maps"
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
	policy  *livePolicy[csr.Policy]
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
	if p.policy, err = o.signingPolicy(r); err != nil {
		return err
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

// signingPolicy opens the policy of --policy, with the settings of the other flags in it.
func (o *controllerOptions) signingPolicy(r *controllerRun) (*livePolicy[csr.Policy], error) {
	completed := func(p csr.Policy) (csr.Policy, error) {
		p, err := o.csr.policy.complete(p)
		if p.MaxDuration[""] == 0 {
			p.MaxDuration = maps.Clone(p.MaxDuration)
			if p.MaxDuration == nil {
				p.MaxDuration = map[string]time.Duration{}
			}
			p.MaxDuration[""] = o.signing.duration
		}
		return p, err
	}
	if !o.csr.policy.given("policy") {
		p, err := completed(csr.DefaultPolicy())
		return fixedPolicy(p), err
	}
	l, err := openPolicy(r, "signing", o.csr.policy.file, func(data []byte, read func(string) ([]byte, error)) (csr.Policy, error) {
		p, err := policy.ParseWith(data, read)
		if err != nil {
			return p, err
		}
		return completed(p)
	})
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	return l, nil
}

// csrLoops makes the loops of the part "csr". With another policy they begin anew, and
// decide on all that waits.
func (r *controllerRun) csrLoops() ([]controller.Loop, error) {
	facts := &controller.ClusterFacts{Client: r.client, Log: r.log}
	for name, source := range r.csr.sources {
		if a, err := source.Authority(); err == nil { // signing says the error
			r.metrics.Authority(name, a.Certificate)
		}
	}
	return []controller.Loop{facts, loopFunc(func(ctx context.Context) error {
		return r.csr.policy.each(ctx, func(ctx context.Context, p csr.Policy) error { return r.decideBy(ctx, p, facts) })
	})}, nil
}

// decideBy runs the loops of the part "csr" with one policy.
func (r *controllerRun) decideBy(ctx context.Context, p csr.Policy, facts *controller.ClusterFacts) error {
	approve := slices.Clone(r.csr.approve)
	for _, rule := range p.Rules {
		if !slices.Contains(approve, rule.SignerName) {
			approve = append(approve, rule.SignerName)
		}
	}
	loop := controller.NewCSR(controller.CSROptions{
		Client: r.client, Approve: approve, Sources: r.csr.sources, Policy: p, Cluster: facts.Get,
		Resolve: controller.ResolveWith(nil), Workers: r.o.csr.workers, Authorities: r.authorities(),
		Log: r.log, Metrics: r.metrics, Events: r.events, Issuance: r.csr.log,
	})
	r.current.Store(loop)
	loops := []controller.Loop{loop}
	if r.o.csr.clean {
		loops = append(loops, controller.NewCleaner(loop))
	}
	return controller.RunAll(ctx, loops...)
}
