package main

import (
	"path"
	"slices"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/workload"
)

// workloadFlags are those of the part "workloads".
type workloadFlags struct {
	issuers          []string
	approve          []string
	ownerReference   bool
	clusterNamespace string
	workers          int
}

func (o *workloadFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.issuers, "issuers", nil, "issuers that are served: NAMESPACE/NAME for an Issuer, NAME for a ClusterIssuer, external for those of other groups; with * and ? (default: all)")
	f.StringSliceVar(&o.approve, "approve-signers", certmanager.BuiltInSigners(), "issuers whose CertificateRequests are approved, as approveSignerNames of cert-manager's chart; empty leaves that to others")
	f.BoolVar(&o.ownerReference, "enable-certificate-owner-ref", false, "have the Secrets of Certificates removed with them")
	f.StringVar(&o.clusterNamespace, "cluster-resource-namespace", "kube-system", "namespace of the Secrets that ClusterIssuers name")
	f.IntVar(&o.workers, "workload-workers", certmanager.DefaultWorkers, "Certificates in work at the same time")
}

func (o *controllerOptions) prepareWorkloads(r *controllerRun) error {
	f := &o.workloads
	if f.workers < 1 {
		return usagef("--workload-workers: %d is less than 1", f.workers)
	}
	if f.clusterNamespace == "" {
		return usagef("--cluster-resource-namespace: name a namespace")
	}
	if err := certmanager.ApproveSigners(f.approve).Validate(); err != nil {
		return usagef("--approve-signers: %w", err)
	}
	for _, pattern := range f.issuers {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.Count(pattern, "/") > 1 {
			return usagef("--issuers: %q is not NAMESPACE/NAME, NAME or external", pattern)
		}
	}
	r.workloadMetrics = certmanager.NewMetrics(r.registry)
	r.registry.MustRegister(certmanager.Collector(r.workloads.Load))
	return nil
}

// workloadLoops makes the loops of the part "workloads".
func (r *controllerRun) workloadLoops() ([]controller.Loop, error) {
	client, err := certmanager.NewClient(r.config)
	if err != nil {
		return nil, err
	}
	f := &r.o.workloads
	o := certmanager.Options{
		Client: client, ClusterNamespace: f.clusterNamespace, OwnerReference: f.ownerReference, Workers: f.workers, Log: r.log,
		Metrics: r.workloadMetrics, Events: certmanager.NewEvents(r.lasting, client.Kube),
	}
	if len(f.approve) > 0 {
		o.Approver = certmanager.ApproveSigners(f.approve)
	}
	if len(f.issuers) > 0 {
		o.Ours = f.ours
	}
	loop := certmanager.New(o)
	r.workloads.Store(loop)
	return []controller.Loop{loop}, nil
}

// externalIssuers are, in --issuers, those of other groups than cert-manager.io.
const externalIssuers = "external"

// ours tells whether an issuer, named from a namespace, is in --issuers.
func (o *workloadFlags) ours(ref cmmeta.IssuerReference, namespace string) bool {
	ref = workload.IssuerOf(ref)
	if ref.Group != cmapi.SchemeGroupVersion.Group {
		return slices.Contains(o.issuers, externalIssuers)
	}
	name := namespace + "/" + ref.Name
	if ref.Kind == cmapi.ClusterIssuerKind {
		name = ref.Name
	}
	return slices.ContainsFunc(o.issuers, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil && pattern != externalIssuers
	})
}
