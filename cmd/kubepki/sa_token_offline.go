package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
	"github.com/kubepki/kubepki/token"
)

// saOffline makes tokens with a signing key.
type saOffline struct {
	signer *token.Signer
	server *saServer // nil without --root
	flags  *saMakeFlags
	in     streams
}

// openOffline finds the key: that of --key, or that of the API server below
// --root.
func (f *saMakeFlags) openOffline(s streams) (*saOffline, error) {
	o := &saOffline{flags: f, in: s}
	var servers []*saServer
	if f.root != "" {
		var err error
		if servers, err = f.ofOneMind(s); err != nil {
			return nil, err
		}
		o.server = servers[0]
	}
	key, from, err := o.findKey()
	if err != nil {
		return nil, err
	}
	if o.signer, err = token.NewSigner(key); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	for _, a := range servers {
		if !a.verifies(key.Public()) {
			fmt.Fprintf(s.err, "kubepki: warning: the kube-apiserver of %s verifies tokens with other keys (--service-account-key-file): it will refuse this one\n", cmp.Or(a.node, f.root))
		}
		if f.issuer != "" && len(a.issuers) > 0 && !slices.Contains(a.issuers, f.issuer) {
			fmt.Fprintf(s.err, "kubepki: warning: the kube-apiserver of %s takes tokens of %s alone (--service-account-issuer): it will refuse this one\n", cmp.Or(a.node, f.root), report.Plain(strings.Join(a.issuers, ", ")))
		}
	}
	return o, nil
}

// ofOneMind reads the API servers below --root, which must make like tokens.
func (f *saMakeFlags) ofOneMind(s streams) ([]*saServer, error) {
	servers, _, err := readSAServers([]nodeRoot{{dir: f.root}})
	if err != nil {
		return nil, err
	}
	if f.issuer != "" { // otherwise it cannot go on
		servers[0].warnUnseen(s)
	}
	for _, other := range servers[1:] {
		if !servers[0].agrees(other, f.key == "") {
			return nil, advise(fmt.Errorf("--root %s: the kube-apiservers of %s and %s sign with other keys, or for other issuers or audiences", f.root, servers[0].node, other.node),
				"name one of them, for example --root %s", servers[0].dir)
		}
	}
	return servers, nil
}

// findKey returns the key that signs, and where it is from.
func (o *saOffline) findKey() (crypto.Signer, string, error) {
	f := o.flags
	if f.key == "" {
		key, err := o.server.signingKey()
		return key, o.server.keyPath, err
	}
	if name, ok := strings.CutPrefix(f.key, "kms:"); ok {
		key, err := signers.Key(f.socket, name)
		if errors.As(err, new(*net.OpError)) {
			err = advise(err, "see that kubepki-kms runs, and name the socket at which it listens with --kms-socket")
		}
		return key, "--key " + f.key, err
	}
	data, err := readInput(o.in, f.key)
	if err != nil {
		return nil, "", fmt.Errorf("--key: %w", err)
	}
	key, err := issue.ParsePrivateKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("--key %s: %w", f.key, err)
	}
	return key, "--key " + f.key, nil
}

// claims are those that kube-apiserver makes
// (k8s.io/kubernetes/pkg/serviceaccount/claims.go).
func (o *saOffline) claims(w *saWant) (token.Claims, error) {
	c := token.Claims{
		Issuer: w.issuer, Audiences: w.audiences, ID: uuid.NewString(), IssuedAt: w.at, NotBefore: w.at, Expires: w.at.Add(w.life),
		Namespace: w.namespace, ServiceAccount: token.Ref{Name: w.name, UID: w.uid}, Node: w.node, Attestations: w.attestations,
	}
	if c.Issuer == "" && o.server != nil {
		issuers, err := o.server.knownIssuers()
		if err != nil {
			return c, err
		}
		c.Issuer = issuers[0]
	}
	if c.Issuer == "" {
		return c, advise(usagef("--issuer: the issuer of the cluster's tokens is not known"), "it is the first --service-account-issuer of kube-apiserver; kubeadm's is https://kubernetes.default.svc.cluster.local")
	}
	ofServer := o.apiAudiences(c.Issuer)
	if len(c.Audiences) == 0 {
		c.Audiences = ofServer
	}
	if w.webhook() && slices.Contains(ofServer, c.Audiences[0]) {
		return c, usagef("--audience %s is that of the API server, which a token for a webhook must not be for", c.Audiences[0])
	}
	if w.warnAfter > 0 {
		c.WarnAfter = w.at.Add(w.warnAfter)
	}
	if w.kind.Kind != "" {
		w.kind.Bind(&c, w.bound)
	}
	return c, nil
}

// apiAudiences are those that the API server goes by: all of its issuers, where
// it is not told otherwise (k8s.io/kubernetes/pkg/kubeapiserver/options/authentication.go).
func (o *saOffline) apiAudiences(issuer string) []string {
	switch {
	case o.server != nil && len(o.server.audiences) > 0:
		return o.server.audiences
	case o.server != nil && len(o.server.issuers) > 0:
		return o.server.issuers
	}
	return []string{issuer}
}

func (o *saOffline) token(_ context.Context, w *saWant) (string, error) {
	c, err := o.claims(w)
	if err != nil {
		return "", err
	}
	return o.sign(c)
}

func (o *saOffline) sign(c token.Claims) (string, error) {
	text, err := o.signer.Sign(c)
	if refused := new(token.RefusedError); errors.As(err, &refused) {
		return "", usagef("such a token would be refused: %s", strings.TrimPrefix(refused.Error(), "token refused: "))
	}
	return text, err
}

// secret is the Secret as kube-controller-manager would fill it with the same key
// (k8s.io/kubernetes/pkg/serviceaccount/legacy.go, LegacyClaims). The API server
// takes its token only as the Secret holds it, so that without the Secret one of
// an ECDSA key, whose signatures are never alike, would be of no use.
func (o *saOffline) secret(ctx context.Context, w *saWant) (*corev1.Secret, error) {
	switch rsa := strings.HasPrefix(o.signer.Key().Algorithm(), "RS"); {
	case !w.wantsManifest && !rsa:
		return nil, advise(fmt.Errorf("an ECDSA key signs another token each time, and the API server takes none but the one that Secret %s/%s holds", w.namespace, w.secret),
			"apply what kubepki sa token %s --secret prints; then run this again without --root and --key: it takes the token out of that Secret", w.account)
	case !w.wantsManifest:
		fmt.Fprintf(o.in.err, "kubepki: warning: the API server takes the token only while Secret %s/%s holds this very one: kubepki sa token %s --secret prints it\n", w.namespace, w.secret, w.account)
	}
	text, err := o.sign(token.Claims{
		Issuer: token.LegacyIssuer, Legacy: true, Namespace: w.namespace,
		ServiceAccount: token.Ref{Name: w.name, UID: w.uid}, Secret: &token.Ref{Name: w.secret},
	})
	if err != nil {
		return nil, err
	}
	var ca []byte
	if w.wantsManifest {
		if ca, err = o.anchors(ctx, w.namespace); err != nil {
			return nil, err
		}
	}
	a := kube.AccountSecret{Namespace: w.namespace, Account: w.name, UID: w.uid, Name: w.secret}
	return a.Object(text, ca), nil
}

// anchors are those that kube-controller-manager publishes for pods.
func (o *saOffline) anchors(context.Context, string) ([]byte, error) {
	switch {
	case o.flags.ca != "":
		return readAnchors(o.in, o.flags.ca)
	case o.server == nil:
		return nil, errNoAnchors()
	case len(o.server.ca) > 0:
		return o.server.ca, nil
	}
	var a serverAnswer
	err := a.readRoot(o.flags.root)
	return a.ca, err
}

// target is a kubeconfig without names of users and credential.
func (o *saOffline) target(server string) (layout.KubeconfigSpec, error) {
	a, err := locate(o.in, o.flags.root, o.flags.ca, server)
	if err != nil {
		return layout.KubeconfigSpec{}, err
	}
	if len(a.ca) == 0 {
		return layout.KubeconfigSpec{}, errNoAnchors()
	}
	return layout.KubeconfigSpec{Cluster: a.cluster, Server: a.server, CA: a.ca}, nil
}

func errNoAnchors() error {
	return advise(usagef("--certificate-authority: whom clients are to trust for the API server is not known"), "name the file of the cluster's authority, or a control plane with --root")
}
