package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/internal/workload"
)

// The choices of --dry-run, as kubectl has them.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

type certCreateOptions struct {
	access                   certAccess
	issuer                   string
	cluster                  bool
	issuerKind, issuerGroup  string
	dns, ips, uris, emails   []string
	cn                       string
	secret                   string
	duration, renewBefore    string
	key                      string
	usages                   []string
	isCA                     bool
	request, certificateFile string
	output, dryRun           string
	wait                     bool
	timeout                  time.Duration
}

func newCertCreateCommand(s streams) *cobra.Command {
	var o certCreateOptions
	c := &cobra.Command{
		Use:   "create NAME --issuer ISSUER",
		Short: "Make a Certificate, or have a request of your own signed",
		Long: `Create makes a Certificate: an ECDSA key of 256 bits that each renewal replaces, for
servers, in the Secret NAME-tls, unless the flags say otherwise. What cannot be
fulfilled is refused before the cluster is asked. stdout names what was made.

With --request FILE it makes a CertificateRequest from a request (PEM) whose key you
keep, waits until it is approved and signed, and writes the certificate with its
chain to NAME.crt, which it never overwrites. When the waiting ends, run it again to
go on.

--dry-run=client prints what would be made and asks nobody; --dry-run=server has the
API server judge it.`,
		Example: `  # For a name, and wait until it is there
  kubepki cert create web -n shop --issuer shop-ca --dns web.example.com --dns www.example.com --wait

  # As a manifest
  kubepki cert create web -n shop --issuer letsencrypt --cluster-issuer --dns web.example.com --dry-run=client -o yaml

  # A client's certificate for a day, for a key that stays where it is
  kubepki cert create laptop -n shop --issuer shop-ca --request laptop.csr --duration 24h --usages 'client auth'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args[0]) },
	}
	f := c.Flags()
	o.access.add(f)
	f.StringVar(&o.issuer, "issuer", "", "name of the issuer")
	f.BoolVar(&o.cluster, "cluster-issuer", false, "the issuer is a ClusterIssuer")
	f.StringVar(&o.issuerKind, "issuer-kind", "", "kind of an external issuer")
	f.StringVar(&o.issuerGroup, "issuer-group", "", "group of an external issuer")
	f.StringSliceVar(&o.dns, "dns", nil, "DNS name (repeatable)")
	f.StringSliceVar(&o.ips, "ip", nil, "IP address (repeatable)")
	f.StringSliceVar(&o.uris, "uri", nil, "URI, such as a SPIFFE ID (repeatable)")
	f.StringSliceVar(&o.emails, "email", nil, "mail address (repeatable)")
	f.StringVar(&o.cn, "cn", "", "common name (default: none)")
	f.StringVar(&o.secret, "secret", "", "Secret to be written (default: NAME-tls)")
	f.StringVar(&o.duration, "duration", "", "life, like 24h or 90d (default: 90d, as the API says)")
	f.StringVar(&o.renewBefore, "renew-before", "", "how long before its end it is renewed (default: a third of its life)")
	f.StringVar(&o.key, "key", "ecdsa-256", "key: ecdsa-256, ecdsa-384, ecdsa-521, ed25519, rsa-2048, rsa-3072 or rsa-4096")
	f.StringSliceVar(&o.usages, "usages", nil, "usages in the words of the API, like 'client auth' (default: digital signature, server auth, and key encipherment for RSA; with --request those of the request)")
	f.BoolVar(&o.isCA, "ca", false, "an authority, which signs others")
	f.StringVar(&o.request, "request", "", "FILE with a request (PEM) to be signed, or - for standard input")
	f.StringVar(&o.certificateFile, "certificate-out", "", "with --request: FILE for the certificate (default: NAME.crt)")
	f.StringVarP(&o.output, "output", "o", "", "output: name, json or yaml of what was made (default: name)")
	f.StringVar(&o.dryRun, "dry-run", dryRunNone, "none, client (print it) or server (have the API server judge it)")
	f.BoolVar(&o.wait, "wait", false, "wait until the Certificate is ready")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	f.Lookup("dry-run").NoOptDefVal = dryRunServer
	return c
}

func (o *certCreateOptions) run(ctx context.Context, s streams, name string) error {
	if err := o.check(name); err != nil {
		return err
	}
	if o.request != "" {
		return o.runRequest(ctx, s, name)
	}
	c, err := o.certificate(name)
	if err != nil {
		return err
	}
	if o.dryRun == dryRunClient {
		c.Namespace = o.printedNamespace()
		return o.print(s, certResource(name), c)
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	c.Namespace = o.access.namespace
	o.sayIssuer(ctx, s, api, c.Spec.IssuerRef)
	made, err := api.CreateCertificate(ctx, c, o.dryRun == dryRunServer)
	if apierrors.IsAlreadyExists(err) {
		return advise(err, "kubepki cert status %s -n %s shows it; choose another name, or change it: %s", name, c.Namespace, "kubectl -n "+c.Namespace+" edit certificate "+name)
	}
	if err != nil {
		return adviseCert(err, "create certificates.cert-manager.io in namespace "+c.Namespace)
	}
	fmt.Fprintf(s.err, "made for %s, by %s, into Secret %s\n", report.Plain(strings.Join(certNames(&made.Spec), ", ")), kube.IssuerText(made.Spec.IssuerRef), made.Spec.SecretName)
	if err := o.print(s, certResource(name), made); err != nil || !o.wait {
		return err
	}
	return (&awaiting{api: api, s: s, timeout: o.timeout}).all(ctx, []cmapi.Certificate{*made})
}

// printedNamespace is that of a manifest: none where none is named and there is no
// kubeconfig.
func (o *certCreateOptions) printedNamespace() string {
	if o.access.namespace != "" {
		return o.access.namespace
	}
	namespace, err := o.access.Namespace()
	if err != nil {
		return ""
	}
	return namespace
}

// print prints what was made, as kubectl create does.
func (o *certCreateOptions) print(s streams, resource string, object any) error {
	switch o.output {
	case "json", "yaml":
		manifest, err := kube.Manifest(object)
		if err != nil {
			return err
		}
		return report.Document(s.out, o.output, manifest)
	}
	did := map[string]string{dryRunNone: "created", dryRunClient: "created (client dry run)", dryRunServer: "created (server dry run)"}[o.dryRun]
	if o.output == "name" {
		_, err := fmt.Fprintln(s.out, resource)
		return err
	}
	_, err := fmt.Fprintf(s.out, "%s %s\n", resource, did)
	return err
}

func (o *certCreateOptions) check(name string) error {
	switch {
	case o.issuer == "":
		return usagef("--issuer: name the issuer")
	case !slices.Contains([]string{"", "name", "json", "yaml"}, o.output):
		return usagef("--output: unknown format %q: use name, json or yaml", o.output)
	case !slices.Contains([]string{dryRunNone, dryRunClient, dryRunServer}, o.dryRun):
		return usagef("--dry-run: unknown choice %q: use none, client or server", o.dryRun)
	case o.wait && o.dryRun != dryRunNone:
		return usagef("--wait: with --dry-run nothing comes that could be waited for")
	case o.timeout <= 0:
		return usagef("--timeout: %s is no time to wait: use 5m", o.timeout)
	case o.cluster && (o.issuerKind != "" || o.issuerGroup != ""):
		return usagef("--cluster-issuer and --issuer-kind or --issuer-group say different things: leave one out")
	case (o.issuerKind == "") != (o.issuerGroup == ""):
		return usagef("--issuer-kind, --issuer-group: an external issuer is named by both")
	case o.certificateFile != "" && o.request == "":
		return usagef("--certificate-out belongs to --request")
	case o.request != "" && len(o.dns)+len(o.ips)+len(o.uris)+len(o.emails) > 0, o.request != "" && o.cn+o.secret+o.renewBefore != "":
		return usagef("--request: its names and key are in the request: leave out --dns, --ip, --uri, --email, --cn, --secret and --renew-before")
	}
	if err := checkObjectName(o.issuer); err != nil {
		return usagef("--issuer: %w", err)
	}
	return checkObjectName(name)
}

func (o *certCreateOptions) issuerRef() cmmeta.IssuerReference {
	ref := workload.IssuerOf(cmmeta.IssuerReference{Name: o.issuer, Kind: o.issuerKind, Group: o.issuerGroup})
	if o.cluster {
		ref.Kind = cmapi.ClusterIssuerKind
	}
	return ref
}

// certificate is what is to be made, once it is known that it can be fulfilled.
func (o *certCreateOptions) certificate(name string) (*cmapi.Certificate, error) {
	key, err := parseKeyFlag(o.key)
	if err != nil {
		return nil, err
	}
	c := &cmapi.Certificate{
		TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.CertificateSpec{
			CommonName: o.cn, DNSNames: o.dns, IPAddresses: o.ips, URIs: o.uris, EmailAddresses: o.emails, IsCA: o.isCA,
			SecretName: o.secret, IssuerRef: o.issuerRef(), PrivateKey: key, Usages: o.usageNames(key),
		},
	}
	if o.secret == "" {
		c.Spec.SecretName = name + "-tls"
	}
	if c.Spec.Duration, err = lifeFlag("--duration", o.duration); err != nil {
		return nil, err
	}
	if c.Spec.RenewBefore, err = lifeFlag("--renew-before", o.renewBefore); err != nil {
		return nil, err
	}
	return c, checkCertificate(&c.Spec)
}

// The API refuses lives and renewals that are shorter (cert-manager
// internal/apis/certmanager/validation).
const (
	leastLife        = time.Hour
	leastRenewBefore = 5 * time.Minute
)

func checkCertificate(spec *cmapi.CertificateSpec) error {
	if err := checkObjectName(spec.SecretName); err != nil {
		return usagef("--secret: %w", err)
	}
	life := workload.DefaultDuration
	if spec.Duration != nil {
		life = spec.Duration.Duration
	}
	switch before := spec.RenewBefore; {
	case life < leastLife:
		return usagef("--duration: %s is shorter than the API allows: an hour at least", life)
	case before != nil && before.Duration < leastRenewBefore:
		return usagef("--renew-before: %s is shorter than the API allows: 5m at least", before.Duration)
	case before != nil && before.Duration >= life:
		return usagef("--renew-before: %s is no less than the life of %s: it would be renewed for ever", before.Duration, life)
	}
	for _, name := range spec.DNSNames {
		if problem := dnsProblem(name); problem != "" {
			return usagef("--dns: %q %s", name, problem)
		}
	}
	key, err := workload.NewKey(&cmapi.CertificateSpec{PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.Ed25519KeyAlgorithm}})
	if err != nil {
		return err
	}
	// The very request that a controller makes of it; with any key, for its names.
	if _, err := workload.Request(spec, key); err != nil {
		return usagef("no certificate can be made of it: %w", err)
	}
	return nil
}

func lifeFlag(flag, text string) (*metav1.Duration, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none is named
	}
	d, err := parseLife(flag, text)
	return &metav1.Duration{Duration: d}, err
}

// parseKeyFlag reads --key: an algorithm and a size.
func parseKeyFlag(text string) (*cmapi.CertificatePrivateKey, error) {
	algorithm, size, _ := strings.Cut(strings.ToLower(text), "-")
	n, err := strconv.Atoi(size)
	key := &cmapi.CertificatePrivateKey{RotationPolicy: cmapi.RotationPolicyAlways, Size: n}
	switch {
	case algorithm == "ed25519" && size == "":
		key.Algorithm, key.Size = cmapi.Ed25519KeyAlgorithm, 0
		return key, nil
	case algorithm == "ecdsa" && err == nil && slices.Contains([]int{256, 384, 521}, n):
		key.Algorithm = cmapi.ECDSAKeyAlgorithm
		return key, nil
	case algorithm == "rsa" && err == nil && slices.Contains([]int{2048, 3072, 4096}, n):
		key.Algorithm = cmapi.RSAKeyAlgorithm
		return key, nil
	}
	return nil, usagef("--key: unknown key %q: use ecdsa-256, ecdsa-384, ecdsa-521, ed25519, rsa-2048, rsa-3072 or rsa-4096", text)
}

func (o *certCreateOptions) usageNames(key *cmapi.CertificatePrivateKey) []cmapi.KeyUsage {
	var usages []cmapi.KeyUsage
	for _, u := range o.usages {
		usages = append(usages, cmapi.KeyUsage(strings.TrimSpace(u)))
	}
	switch {
	case len(usages) > 0:
		return usages
	case o.isCA:
		return []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageCertSign, cmapi.UsageCRLSign}
	case key.Algorithm == cmapi.RSAKeyAlgorithm:
		return []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageKeyEncipherment, cmapi.UsageServerAuth}
	}
	return []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageServerAuth}
}

// dnsProblem says why a text is no DNS name that programs would take from a certificate:
// the API takes any.
func dnsProblem(name string) string {
	labels := strings.Split(strings.TrimPrefix(name, "*."), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") ||
			strings.ContainsFunc(l, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
			}) {
			return "is no DNS name: labels of letters, digits and -, of 63 at most; an international name in its xn-- form; a wildcard as the whole first label; no dot at the end"
		}
	}
	if len(name) > 253 {
		return "is longer than a DNS name can be: 253 characters"
	}
	return ""
}

// sayIssuer warns of an issuer that is not there or not ready: it may come yet.
func (o *certCreateOptions) sayIssuer(ctx context.Context, s streams, api *kube.Certs, ref cmmeta.IssuerReference) {
	i := api.Issuer(ctx, o.access.namespace, ref)
	text := kube.IssuerText(ref)
	switch {
	case i.Look == why.Missing:
		fmt.Fprintf(s.err, "kubepki: warning: %s is not there (yet): until it is, nothing is issued\n", text)
	case i.Look == why.NoKind:
		fmt.Fprintf(s.err, "kubepki: warning: the API server knows no issuers of kind %s in group %s: nothing is issued\n", report.Plain(ref.Kind), report.Plain(ref.Group))
	case i.Object != nil && (i.Object.Ready == nil || i.Object.Ready.Status != cmmeta.ConditionTrue):
		fmt.Fprintf(s.err, "kubepki: warning: %s is not ready\n", text)
	}
}
