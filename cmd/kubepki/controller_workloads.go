package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/policy"
	"github.com/kubepki/kubepki/internal/workload"
)

// workloadFlags are those of the part "workloads".
type workloadFlags struct {
	issuers          []string
	skipNamespaces   []string
	approve          []string
	ownerReference   bool
	clusterNamespace string
	workers          int
	policyFile       string
	csrIssuers       bool
	given            func(flag string) bool
	rollover         bool
	rolloverAccept   time.Duration
	rolloverRate     float64
	minimumDuration  time.Duration
}

func (o *workloadFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.issuers, "issuers", nil, "issuers that are served: NAMESPACE/NAME for an Issuer, NAME for a ClusterIssuer, external for those of other groups; with * and ? (default: all)")
	f.StringSliceVar(&o.skipNamespaces, "skip-namespaces", nil, "namespaces whose Certificates, CertificateRequests and Issuers are left to another controller; with * and ?")
	f.StringSliceVar(&o.approve, "approve-signers", certmanager.BuiltInSigners(), "issuers whose CertificateRequests are approved, as approveSignerNames of cert-manager's chart; empty leaves that to others")
	f.BoolVar(&o.ownerReference, "enable-certificate-owner-ref", false, "have the Secrets of Certificates removed with them")
	f.StringVar(&o.clusterNamespace, "cluster-resource-namespace", "kube-system", "namespace of the Secrets that ClusterIssuers name")
	f.StringVar(&o.policyFile, "workload-policy", "", "policy FILE that says who may ask which names from which issuer (docs/workload-policy.md), in the place of --approve-signers")
	f.BoolVar(&o.csrIssuers, "csr-issuers", false, "sign approved CertificateSigningRequests of the signers issuers.cert-manager.io/NAMESPACE.NAME and clusterissuers.cert-manager.io/NAME too")
	o.given = f.Changed
	f.BoolVar(&o.rollover, "ca-rollover", true, "carry workloads over when the CA of an issuer changes; an issuer's annotation kubepki.dev/ca-rollover comes first")
	f.DurationVar(&o.rolloverAccept, "ca-rollover-accept", certmanager.DefaultAccept, "how long applications may take to read a changed Secret; an issuer's annotation kubepki.dev/ca-rollover-accept comes first")
	f.Float64Var(&o.rolloverRate, "ca-rollover-rate", certmanager.DefaultReissueRate, "how many certificates of an issuer are issued anew in a second because its CA changes, at the most; they are spread over an hour at least, or over an issuer's kubepki.dev/ca-rollover-window")
	f.DurationVar(&o.minimumDuration, "minimum-duration", workload.Upstream.Duration, "shortest spec.duration for which certificates are issued, as cert-manager's webhook has it; spec.renewBefore is at least a twelfth of it, or 5m")
	f.IntVar(&o.workers, "workload-workers", certmanager.DefaultWorkers, "Certificates in work at the same time")
}

func (o *controllerOptions) prepareWorkloads(r *controllerRun) error {
	f := &o.workloads
	if f.workers < 1 {
		return usagef("--workload-workers: %d is less than 1", f.workers)
	}
	if f.rolloverAccept <= 0 {
		return usagef("--ca-rollover-accept: %s is no time to wait; kubepki.dev/ca-rollover-accept of an issuer may be 0s", f.rolloverAccept)
	}
	if f.rolloverRate <= 0 {
		return usagef("--ca-rollover-rate: %g certificates a second are none", f.rolloverRate)
	}
	if f.minimumDuration <= 0 {
		return usagef("--minimum-duration: %s is no life for a certificate", f.minimumDuration)
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
	for _, pattern := range f.skipNamespaces {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.Contains(pattern, "/") {
			return usagef("--skip-namespaces: %q is no name of a namespace", pattern)
		}
	}
	if f.policyFile != "" {
		if len(f.approve) > 0 && f.given("approve-signers") {
			return usagef("--workload-policy decides in the place of --approve-signers: leave one out, or give --approve-signers= to leave approvals to others")
		}
		var err error
		r.workloadPolicy, err = openPolicy(r, "workload", f.policyFile, func(data []byte, _ func(string) ([]byte, error)) (*workload.Policy, error) {
			return policy.ParseWorkload(data)
		})
		if err != nil {
			return fmt.Errorf("--workload-policy: %w", err)
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
		Client: client, ClusterNamespace: f.clusterNamespace, OwnerReference: f.ownerReference, Workers: f.workers, Log: r.log, SigningRequests: f.csrIssuers,
		Limits: workload.LimitsFor(f.minimumDuration), Rollover: certmanager.Rollover{Off: !f.rollover, Accept: f.rolloverAccept, Rate: f.rolloverRate},
		Publish: r.publishBundle(client.Kube),
		Metrics: r.workloadMetrics, Events: certmanager.NewEvents(r.lasting, client.Kube),
	}
	if len(f.approve) > 0 {
		o.Approver = certmanager.ApproveSigners(f.approve)
	}
	if len(f.issuers)+len(f.skipNamespaces) > 0 {
		o.Ours = f.ours
	}
	o.ACME, o.RenewalInfo = r.acme.orders, r.o.acme.renewalInfo
	if r.workloadPolicy != nil {
		o.Guard = certmanager.Limits{Policy: r.workloadPolicy.get, Log: r.log}
	}
	loop := certmanager.New(o)
	switch {
	case len(f.approve) > 0 && r.workloadPolicy != nil:
		loop.Approver = loop.ByPolicy(r.workloadPolicy.get)
	case len(f.approve) > 0:
		r.log.Warn("workloads: without --workload-policy all requests to the signers of --approve-signers are approved, from every namespace", "signers", f.approve)
	}
	r.workloads.Store(loop)
	loops := []controller.Loop{loop}
	if r.workloadPolicy != nil {
		loops = append(loops, loopFunc(func(ctx context.Context) error { return r.workloadPolicy.wake(ctx, loop.PolicyChanged) }))
	}
	return loops, nil
}

// publishBundle writes ClusterTrustBundles: NAME, or SIGNER:NAME for one of a signer.
func (r *controllerRun) publishBundle(client kubernetes.Interface) certmanager.PublishBundle {
	bundles := &controller.TrustBundles{Client: client, Log: r.log}
	return func(ctx context.Context, name string, anchors []*x509.Certificate) error {
		b := controller.TrustBundle{Name: name, Anchors: func() ([]*x509.Certificate, error) { return anchors, nil }}
		if i := strings.LastIndex(name, ":"); i >= 0 {
			b.SignerName, b.Name = name[:i], name[i+1:]
		}
		return bundles.Publish(ctx, b)
	}
}

// externalIssuers are, in --issuers, those of other groups than cert-manager.io.
const externalIssuers = "external"

// ours tells whether an issuer, named from a namespace, is served: it is in --issuers,
// and the namespace is not in --skip-namespaces. A ClusterIssuer itself is of none.
func (o *workloadFlags) ours(ref cmmeta.IssuerReference, namespace string) bool {
	matches := func(pattern, name string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	}
	if namespace != "" && slices.ContainsFunc(o.skipNamespaces, func(pattern string) bool { return matches(pattern, namespace) }) {
		return false
	}
	if len(o.issuers) == 0 {
		return true
	}
	ref = workload.IssuerOf(ref)
	if ref.Group != cmapi.SchemeGroupVersion.Group {
		return slices.Contains(o.issuers, externalIssuers)
	}
	name := namespace + "/" + ref.Name
	if ref.Kind == cmapi.ClusterIssuerKind {
		name = ref.Name
	}
	return slices.ContainsFunc(o.issuers, func(pattern string) bool { return pattern != externalIssuers && matches(pattern, name) })
}
