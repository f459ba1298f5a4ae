package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type createOptions struct {
	access     kube.Access
	user       string
	groups     []string
	file       string
	server     string
	cluster    string
	namespace  string
	expires    string
	algorithm  string
	signer     string
	approve    string
	timeout    time.Duration
	privileged bool
	dryRun     bool
}

func newCSRCreateCommand(s streams) *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use:   "create --user USER --kubeconfig-out FILE",
		Short: "Take a person or a service from a key to a kubeconfig that works",
		Long: `Create makes a key, asks the cluster for a client certificate, approves the
request where you may, waits for the certificate, shows it to the API server, and
only when that knows USER and the groups writes FILE (mode 0600, never
overwritten). What USER may do, role bindings say.

Where you may not approve, somebody else does (kubepki csr approve NAME) while
create waits. Until it is done the key stands in FILE.pending (mode 0600): when
the waiting ends or is interrupted, run the same command again to go on.

A certificate cannot be taken back: --expires is short by default. The signer may
give less.`,
		Example: `  # A person in two groups, for eight hours
  kubepki csr create --user jane --group dev --group ops --kubeconfig-out jane.conf

  # A service for a month, by a load balancer
  kubepki csr create --user ci-robot --expires 30d --server https://api.example.test:6443 --kubeconfig-out robot.conf

  # Let somebody else decide, and wait for an hour
  kubepki csr create --user jane --group dev --kubeconfig-out jane.conf --approve=never --timeout 1h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	f.StringVar(&o.user, "user", "", "name of the user: the common name of the certificate")
	f.Var((*texts)(&o.groups), "group", "group of the user (repeatable)")
	f.StringVar(&o.file, "kubeconfig-out", "", "FILE to write")
	f.StringVar(&o.server, "server", "", "URL of the API server in FILE (default: that of your kubeconfig)")
	f.StringVar(&o.cluster, "cluster-name", catalog.DefaultClusterName, "name of the cluster entry in FILE")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the context in FILE")
	f.StringVar(&o.expires, "expires", "8h", "life to ask for, like 8h or 30d, at least 10m")
	f.StringVar(&o.algorithm, "key-algorithm", string(issue.ECDSAP256), "RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384 or Ed25519")
	f.StringVar(&o.signer, "signer-name", csr.KubeAPIServerClientSigner, "signer to ask")
	f.StringVar(&o.approve, "approve", "auto", "approve the request: auto (where you may), always or never")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for approval and certificate")
	f.BoolVar(&o.privileged, "allow-privileged", false, "allow groups that may do everything, and system: users and groups")
	f.BoolVar(&o.dryRun, "dry-run", false, "have the API server judge the request, keep nothing and write nothing")
	return c
}

func (o *createOptions) run(ctx context.Context, s streams) error {
	expires, err := o.check()
	if err != nil {
		return err
	}
	api, err := connect(o.access)
	if err != nil {
		return err
	}
	spec, err := o.target(api)
	if err != nil {
		return err
	}
	p, err := o.pending(ctx, s, expires)
	if err != nil || p == nil {
		return err
	}
	if o.dryRun {
		return o.rehearse(ctx, s, api, p)
	}
	certificate, err := o.obtain(ctx, s, api, p)
	if err != nil {
		return err
	}
	o.sayLife(s, certificate[0], expires)
	spec.Certificate, spec.Key = trust.EncodeCertificates(certificate...), []byte(p.Key)
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	if err := o.prove(ctx, s, data); err != nil {
		return err
	}
	if err := o.write(ctx, data); err != nil {
		return err
	}
	return o.finish(s)
}

// check refuses what cannot be meant, before anything is asked.
func (o *createOptions) check() (time.Duration, error) {
	switch {
	case o.user == "":
		return 0, usagef("--user: say for whom the certificate is")
	case o.file == "":
		return 0, usagef("--kubeconfig-out: name the FILE to write")
	case o.signer == "" || !strings.Contains(o.signer, "/"):
		return 0, usagef("--signer-name %q is no signer, such as %s", o.signer, csr.KubeAPIServerClientSigner)
	case !slices.Contains([]string{"auto", "always", "never"}, o.approve):
		return 0, usagef("--approve: unknown choice %q: use auto, always or never", o.approve)
	case o.timeout <= 0:
		return 0, usagef("--timeout: %s is no time to wait: use 5m", o.timeout)
	case o.file == "-":
		return 0, usagef("--kubeconfig-out -: a key does not go to a terminal: name a FILE")
	case isFolder(o.file) || strings.HasSuffix(o.file, "/"):
		return 0, usagef("--kubeconfig-out %s is a folder", o.file)
	}
	expires, err := parseLife("--expires", o.expires)
	if err != nil {
		return 0, err
	}
	if expires < 10*time.Minute || expires >= 1<<31*time.Second {
		return 0, usagef("--expires %s: the API takes lives from 10 minutes to 68 years", o.expires)
	}
	return expires, o.checkIdentity()
}

// checkIdentity refuses names that cannot be written, and privilege that is
// not asked for by a flag of its own.
func (o *createOptions) checkIdentity() error {
	for _, text := range append([]string{o.user}, o.groups...) {
		if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }) {
			return usagef("--user, --group: %q is no plain text", text)
		}
	}
	// The admission plugin CertificateSubjectRestriction refuses it
	// (k/k plugin/pkg/admission/certificates/subjectrestriction).
	if o.signer == csr.KubeAPIServerClientSigner && slices.Contains(o.groups, "system:masters") {
		return advise(fmt.Errorf("group system:masters cannot be had from signer %s: the API server refuses it (CertificateSubjectRestriction)", o.signer),
			"an administrator is in a group that a ClusterRoleBinding binds to cluster-admin, such as %s; or make the kubeconfig from the authority itself: kubepki kubeconfig component super-admin", catalog.AdminGroup)
	}
	if o.privileged {
		return nil
	}
	const hint = "if that is meant, add --allow-privileged"
	for _, g := range o.groups {
		if slices.Contains(privilegedGroups, g) {
			return advise(fmt.Errorf("group %s may do everything in the cluster", g), hint)
		}
	}
	for _, name := range append([]string{o.user}, o.groups...) {
		if strings.HasPrefix(name, "system:") {
			return advise(fmt.Errorf("%s is one of Kubernetes' own identities", name), hint)
		}
	}
	return nil
}

// target is the kubeconfig without its credential.
func (o *createOptions) target(api *clusterAPI) (layout.KubeconfigSpec, error) {
	spec, err := api.target(o.server)
	spec.Cluster, spec.User, spec.Namespace = o.cluster, o.user, o.namespace
	return spec, err
}

// target is a kubeconfig for the cluster, without names and credential; server is
// the URL that is dialled instead of that of the user's own kubeconfig.
func (a *clusterAPI) target(server string) (layout.KubeconfigSpec, error) {
	c := a.config
	spec := layout.KubeconfigSpec{Server: c.Host, ServerName: c.ServerName}
	if c.Insecure {
		return spec, advise(errors.New("your kubeconfig does not verify the API server (insecure-skip-tls-verify): neither would the new one"), "put the cluster's authority into it as certificate-authority-data")
	}
	if server != "" {
		spec.Server, spec.ServerName = server, ""
	}
	err := checkServer(spec.Server)
	if err != nil {
		return spec, err
	}
	if spec.ProxyURL, err = proxyOf(c); err != nil {
		return spec, err
	}
	if spec.CA, err = a.authorities(); err != nil {
		return spec, fmt.Errorf("certificate-authority of your kubeconfig: %w", err)
	}
	return spec, nil
}

// proxyOf is the proxy-url of a kubeconfig, empty where it has none: then the
// variables of the environment say how to call, for the new one too.
func proxyOf(c *rest.Config) (string, error) {
	if c.Proxy == nil {
		return "", nil
	}
	r, err := http.NewRequest(http.MethodGet, c.Host, nil)
	if err != nil {
		return "", fmt.Errorf("server of your kubeconfig: %w", err)
	}
	proxy, err := c.Proxy(r)
	if err != nil || proxy == nil {
		return "", err
	}
	return proxy.String(), nil
}

// rehearse has the API server judge the request.
func (o *createOptions) rehearse(ctx context.Context, s streams, api *clusterAPI, p *pendingRequest) error {
	if _, err := kube.CreateRequest(ctx, api.client, p.object(), true); err != nil && !apierrors.IsAlreadyExists(err) {
		return o.adviseCreate(err)
	}
	fmt.Fprintf(s.err, "would ask %s for %s, and write %s\n", o.signer, report.Plain(p.subject()), o.file)
	return nil
}

func (o *createOptions) adviseCreate(err error) error {
	return adviseAPI(err, "give yourself the right to create and get certificatesigningrequests of certificates.k8s.io")
}

// obtain asks for the certificate, and waits for it.
func (o *createOptions) obtain(ctx context.Context, s streams, api *clusterAPI, p *pendingRequest) ([]*x509.Certificate, error) {
	made, err := o.ask(ctx, s, api, p)
	if err != nil {
		return nil, err
	}
	if err := o.tryApprove(ctx, s, api, kube.Request(made)); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	issued, last, err := kube.AwaitIssued(waiting, api.client, made.Name, made.UID)
	var settled *kube.StateError
	switch {
	case errors.As(err, &settled):
		// The key is worth nothing now, and another run begins anew.
		return nil, advise(errors.Join(err, os.Remove(o.pendingFile())), "run the same command again to ask anew, once you know why")
	case waiting.Err() != nil:
		return nil, o.adviseWaiting(made.Name, last)
	case err != nil:
		return nil, o.adviseCreate(err)
	}
	return p.answer(issued)
}

// adviseWaiting says what a request still needs, by the state it was seen in last.
func (o *createOptions) adviseWaiting(name string, last csr.State) error {
	needs := fmt.Sprintf("it needs an approval (kubepki csr approve %s) and a signer of %s", name, o.signer)
	if last == csr.Approved {
		needs = fmt.Sprintf("it is approved, and nobody has signed it: see that a signer of %s runs", o.signer)
	}
	return advise(fmt.Errorf("request %s has no certificate yet", name), "%s; then run the same command again: the key is kept in %s", needs, o.pendingFile())
}

// ask makes the request, or finds that of an earlier run.
func (o *createOptions) ask(ctx context.Context, s streams, api *clusterAPI, p *pendingRequest) (*certificatesv1.CertificateSigningRequest, error) {
	made, err := kube.CreateRequest(ctx, api.client, p.object(), false)
	if apierrors.IsAlreadyExists(err) {
		fmt.Fprintf(s.err, "going on with request %s\n", p.Name)
		if made, err = kube.Object(ctx, api.client, p.Name); err == nil && !bytes.Equal(made.Spec.Request, []byte(p.Request)) {
			err = advise(fmt.Errorf("request %s of the cluster is another than that in %s", p.Name, o.pendingFile()), "remove %s to begin anew", o.pendingFile())
		}
	} else if err == nil {
		fmt.Fprintf(s.err, "asked %s for %s: request %s\n", o.signer, report.Plain(p.subject()), made.Name)
	}
	if err != nil {
		return nil, o.adviseCreate(err)
	}
	return made, nil
}

// tryApprove approves the request where that is wanted and allowed.
func (o *createOptions) tryApprove(ctx context.Context, s streams, api *clusterAPI, r csr.Request) error {
	if o.approve == "never" || r.State != csr.Pending {
		if r.State == csr.Pending {
			fmt.Fprintf(s.err, "waiting for an approval: kubepki csr approve %s\n", r.Name)
		}
		return nil
	}
	_, err := kube.SetApproval(ctx, api.client, r, kube.Approval{
		Type: certificatesv1.CertificateApproved, Reason: "KubepkiApprove", Message: "This CSR was approved by kubepki csr create.",
	})
	switch {
	case err == nil:
		fmt.Fprintf(s.err, "approved %s\n", r.Name)
	case errors.As(err, new(*kube.StateError)):
		return nil // the waiting tells
	case apierrors.IsForbidden(err) && o.approve == "auto":
		fmt.Fprintf(s.err, "you may not approve it; waiting for somebody who may: kubepki csr approve %s\n", r.Name)
		return nil
	}
	return adviseAPI(err, "give yourself the right to update certificatesigningrequests/approval, and to approve on signers "+o.signer+"; or leave out --approve=always")
}

// sayLife warns of a life that is not what was asked for.
func (o *createOptions) sayLife(s streams, c *x509.Certificate, asked time.Duration) {
	left := time.Until(c.NotAfter)
	if left < asked-issue.Backdate-time.Minute {
		fmt.Fprintf(s.err, "kubepki: warning: the signer gave less than was asked for: it ends at %s\n", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if left > asked+time.Hour {
		fmt.Fprintf(s.err, "kubepki: warning: the signer gave more than was asked for: it ends at %s\n", c.NotAfter.UTC().Format(time.RFC3339))
	}
}

// prove shows the new kubeconfig to the API server.
func (o *createOptions) prove(ctx context.Context, s streams, data []byte) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	user, groups, err := kube.WhoAmI(limited, data)
	if err != nil {
		return advise(fmt.Errorf("the certificate is there, and the API server does not take it: %w", err), "nothing was written to %s, and the key is kept in %s: run the same command again", o.file, o.pendingFile())
	}
	missing := slices.DeleteFunc(slices.Clone(o.groups), func(g string) bool { return slices.Contains(groups, g) })
	if user != o.user || len(missing) > 0 {
		return fmt.Errorf("the API server takes the certificate for user %q in %q, wanted is %q in %q: something in between ends TLS", user, groups, o.user, o.groups)
	}
	fmt.Fprintf(s.err, "proved: the API server knows %s in %s\n", report.Plain(user), report.Plain(strings.Join(groups, ", ")))
	return nil
}

func (o *createOptions) write(ctx context.Context, data []byte) error {
	dir, name := filepath.Split(o.file)
	if dir == "" {
		dir = "."
	}
	return writeNew(ctx, dir, []newFile{{name, data, 0o600}}, false)
}

// finish removes what is needed no more, and tells what was made.
func (o *createOptions) finish(s streams) error {
	if err := os.Remove(o.pendingFile()); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out, o.file)
	return err
}

// isDone tells whether FILE is what an earlier run made of a pending request,
// which was killed before it could remove that.
func (o *createOptions) isDone(p *pendingRequest) bool {
	data, err := os.ReadFile(o.file)
	return err == nil && bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(p.Key))))
}
