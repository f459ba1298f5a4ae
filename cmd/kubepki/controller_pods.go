package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/podcert"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
)

// podFlags are those of the parts "podcerts" and "trustbundles".
type podFlags struct {
	signer         string
	trustDomain    string
	authority      keyFlags
	duration       time.Duration
	keyTypes       []string
	allowUnmounted bool
	bundleName     string
	bundleFiles    []string
	bundles        []string
}

func (o *podFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.signer, "pod-signer-name", podcert.DefaultSignerName, "signer of pods' certificates and of their trust bundle; kubernetes.io/* is reserved. "+podIssuers+"NAMESPACE.NAME and "+podClusterIssuers+"NAME sign with the authority of the CA issuer of that name")
	f.StringVar(&o.trustDomain, "pod-trust-domain", "", "trust domain of the SPIFFE IDs of pods, such as example.org")
	f.StringVar(&o.authority.certificate, "pod-signing-cert-file", "", "certificate of the authority of pods; those above it may follow (PEM)")
	f.StringVar(&o.authority.key, "pod-signing-key-file", "", "its key (PEM), or kms:NAME for a key that kubepki-kms holds")
	f.DurationVar(&o.duration, "pod-signing-duration", podcert.MaxLife, "longest life of a pod's certificate")
	f.StringSliceVar(&o.keyTypes, "pod-key-types", podcert.KeyTypes(), "kinds of keys that pods may have")
	f.BoolVar(&o.allowUnmounted, "pod-allow-unmounted", false, "answer requests for pods that mount no certificate of the signer, of agents with the permission for that")
	f.StringVar(&o.bundleName, "pod-trust-bundle", "ca", "name of the trust bundle of pods, after the signer's")
	f.StringSliceVar(&o.bundleFiles, "pod-trust-file", nil, "files with further authorities of that bundle (PEM): the old and the new while one replaces the other")
	f.StringArrayVar(&o.bundles, "trust-bundle", nil, "NAME=FILE[,FILE]: publish the authorities of files as a trust bundle of no signer; repeatable")
}

// podPart is what the parts "podcerts" and "trustbundles" need.
type podPart struct {
	issuer  *certmanager.IssuerSource // the source, where it is an issuer of cert-manager.io
	source  signers.Source            // nil: no authority of pods is configured
	policy  podcert.Policy
	bundles []controller.TrustBundle
}

// openPods opens the authority of pods, once for both parts.
func (o *controllerOptions) openPods(r *controllerRun) error {
	f := &o.pods
	if r.pods.source != nil {
		return nil
	}
	if namespace, name, ok := podIssuer(f.signer); ok {
		if f.authority != (keyFlags{}) {
			return usagef("--pod-signer-name=%s names an issuer, whose Secret has the authority: leave --pod-signing-cert-file and --pod-signing-key-file out", f.signer)
		}
		if name == "" {
			return usagef("--pod-signer-name: %q is not %sNAMESPACE.NAME or %sNAME", f.signer, podIssuers, podClusterIssuers)
		}
		r.pods.issuer = &certmanager.IssuerSource{
			Namespace: namespace, Name: name, ClusterNamespace: o.workloads.clusterNamespace, Told: r.toldAuthority(f.signer),
			Unrecorded: func(err error) {
				r.log.Warn("the record of the issuer's CAs may not be read or written (deploy/podcerts-issuer-rbac.yaml): when its CA changes pods are not carried over", "signer", f.signer, "error", err.Error())
			},
		}
		r.pods.source = r.pods.issuer
		return nil
	}
	if f.authority == (keyFlags{}) {
		return nil
	}
	if f.authority.certificate == "" || f.authority.key == "" {
		return usagef("--pod-signing-cert-file and --pod-signing-key-file belong together")
	}
	var err error
	if r.pods.source, err = o.signing.open(f.authority, r.toldAuthority(f.signer)); err != nil {
		return fmt.Errorf("the authority of %s: %w", f.signer, err)
	}
	return nil
}

// Signers of pods whose authority is that of a CA issuer of cert-manager.io.
const (
	podIssuers        = "issuers.kubepki.dev/"
	podClusterIssuers = "clusterissuers.kubepki.dev/"
)

// podIssuer reads the name of such a signer; the namespace is "" for a ClusterIssuer, and
// the name where there is none.
func podIssuer(signer string) (namespace, name string, ok bool) {
	if name, ok := strings.CutPrefix(signer, podClusterIssuers); ok {
		return "", name, true
	}
	if rest, ok := strings.CutPrefix(signer, podIssuers); ok {
		namespace, name, _ = strings.Cut(rest, ".")
		if namespace == "" {
			name = ""
		}
		return namespace, name, true
	}
	return "", "", false
}

func (o *controllerOptions) preparePods(r *controllerRun) error {
	if err := o.openPods(r); err != nil {
		return err
	}
	if r.pods.source == nil {
		return usagef("--enable podcerts: name the authority of pods with --pod-signing-cert-file and --pod-signing-key-file, or an issuer with --pod-signer-name")
	}
	f := &o.pods
	if f.trustDomain == "" {
		return usagef("--enable podcerts: name the trust domain with --pod-trust-domain")
	}
	r.pods.policy = podcert.Policy{SignerName: f.signer, TrustDomain: f.trustDomain, MaxLife: f.duration, KeyTypes: f.keyTypes, AllowUnmounted: f.allowUnmounted}
	if r.pods.issuer != nil {
		r.pods.policy.Namespace = r.pods.issuer.Namespace
	}
	if err := r.pods.policy.Validate(); err != nil {
		return usageError{fmt.Errorf("the flags of podcerts: %w", err)}
	}
	return nil
}

func (r *controllerRun) podLoops() ([]controller.Loop, error) {
	return []controller.Loop{&controller.PodCertificates{
		Client: r.client, Source: r.pods.source, Policy: r.pods.policy, Log: r.log, Decided: r.metrics.PodDecided,
	}}, nil
}

func (o *controllerOptions) prepareBundles(r *controllerRun) error {
	if err := o.openPods(r); err != nil {
		return err
	}
	f := &o.pods
	if r.pods.source != nil || len(f.bundleFiles) > 0 {
		r.pods.bundles = append(r.pods.bundles, controller.TrustBundle{
			SignerName: f.signer, Name: f.bundleName, Anchors: controller.Anchors(r.pods.source, f.bundleFiles...),
		})
	}
	for _, text := range f.bundles {
		name, list, _ := strings.Cut(text, "=")
		files := strings.Split(list, ",")
		if name == "" || slices.Contains(files, "") {
			return usagef("--trust-bundle: %q is not NAME=FILE[,FILE]", text)
		}
		r.pods.bundles = append(r.pods.bundles, controller.TrustBundle{Name: name, Anchors: controller.Anchors(nil, files...)})
	}
	if len(r.pods.bundles) == 0 {
		return usagef("--enable trustbundles: name what to publish with --trust-bundle, or the authority of pods")
	}
	for _, b := range r.pods.bundles {
		if err := b.Validate(); err != nil {
			return usageError{fmt.Errorf("trust bundle %q: %w", b.Name, err)}
		}
		if b.SignerName != "" && r.pods.issuer != nil {
			continue // an issuer is read once the API server is reached
		}
		if _, err := b.Anchors(); err != nil {
			return fmt.Errorf("trust bundle %q: %w", b.Name, err)
		}
	}
	return nil
}

func (r *controllerRun) bundleLoops() ([]controller.Loop, error) {
	return []controller.Loop{&controller.TrustBundles{Client: r.client, Bundles: r.pods.bundles, Log: r.log}}, nil
}
