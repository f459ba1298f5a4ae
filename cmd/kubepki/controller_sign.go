package main

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/csr"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
)

// builtInSigners are the names of k8s.io/api/certificates/v1.
func builtInSigners() []string {
	return []string{csr.KubeAPIServerClientSigner, csr.KubeAPIServerClientKubeletSigner, csr.KubeletServingSigner, csr.LegacyUnknownSigner}
}

// keyFlags name one authority.
type keyFlags struct{ certificate, key string }

// signingFlags are kube-controller-manager's.
type signingFlags struct {
	all      keyFlags
	one      map[string]*keyFlags // by signer name
	socket   string
	duration time.Duration
}

// signerFlagNames are the names that kube-controller-manager's flags have for
// signers (k/k cmd/kube-controller-manager/app/options/csrsigningcontroller.go).
func signerFlagNames() map[string]string {
	return map[string]string{
		csr.KubeAPIServerClientSigner:        "kube-apiserver-client",
		csr.KubeAPIServerClientKubeletSigner: "kubelet-client",
		csr.KubeletServingSigner:             "kubelet-serving",
		csr.LegacyUnknownSigner:              "legacy-unknown",
	}
}

func (o *signingFlags) add(f *pflag.FlagSet) {
	const prefix = "cluster-signing-"
	f.StringVar(&o.all.certificate, prefix+"cert-file", "", "certificate of the authority that signs; those above it may follow (PEM)")
	f.StringVar(&o.all.key, prefix+"key-file", "", "its key (PEM), or kms:NAME for a key that kubepki-kms holds")
	o.one = map[string]*keyFlags{}
	for _, long := range builtInSigners() {
		name := signerFlagNames()[long]
		k := &keyFlags{}
		o.one[long] = k
		f.StringVar(&k.certificate, prefix+name+"-cert-file", "", "the same for "+long+" alone")
		f.StringVar(&k.key, prefix+name+"-key-file", "", "the same for "+long+" alone")
	}
	f.StringVar(&o.socket, "kms-socket", "/run/kubepki/kms.sock", "unix socket of kubepki-kms")
	f.DurationVar(&o.duration, prefix+"duration", 365*24*time.Hour, "longest life of a certificate, where the policy says nothing")
}

// sources opens the authorities of some signers; told hears when one changes.
func (o *signingFlags) sources(names []string, told func(signerName string) signers.Told) (map[string]signers.Source, error) {
	if err := flagDuration("cluster-signing-duration", o.duration); err != nil {
		return nil, err
	}
	opened := map[keyFlags]signers.Source{}
	all := map[string]signers.Source{}
	for _, long := range names {
		k := *o.one[long]
		if k == (keyFlags{}) {
			k = o.all
		}
		if k.certificate == "" || k.key == "" {
			return nil, usagef("--sign: %s needs --cluster-signing-cert-file and --cluster-signing-key-file; --sign= signs nothing", strings.TrimPrefix(long, "kubernetes.io/"))
		}
		if opened[k] == nil {
			source, err := o.open(k, told(long))
			if err != nil {
				return nil, fmt.Errorf("the authority of %s: %w", long, err)
			}
			opened[k] = source
		}
		all[long] = opened[k]
	}
	return all, nil
}

func (o *signingFlags) open(k keyFlags, told signers.Told) (signers.Source, error) {
	if name, ok := strings.CutPrefix(k.key, "kms:"); ok {
		return signers.KMS(o.socket, name, k.certificate, told)
	}
	return signers.Files(k.certificate, k.key, told)
}

// toldAuthority writes what becomes of an authority to the log.
func (r *controllerRun) toldAuthority(signerName string) signers.Told {
	return func(c *x509.Certificate, err error) {
		if err != nil {
			r.log.Error("a changed authority was not taken up", "signer", signerName, "error", err.Error())
			return
		}
		r.metrics.Authority(signerName, c)
		r.log.Info("a changed authority was taken up", "signer", signerName, "subject", c.Subject.String(), "notAfter", c.NotAfter)
	}
}
