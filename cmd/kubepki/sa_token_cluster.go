package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
)

// saCluster has a cluster make tokens.
type saCluster struct {
	api      *clusterAPI
	accounts *kube.ServiceAccounts
	flags    *saMakeFlags
	in       streams
}

func (f *saMakeFlags) openCluster(s streams) (*saCluster, error) {
	api, err := connect(f.access)
	if err != nil {
		return nil, advise(err, "or sign the token here, with --root or --key")
	}
	accounts, err := kube.NewServiceAccounts(api.config, func(warning string) {
		fmt.Fprintf(s.err, "kubepki: warning: the API server says: %s\n", report.Plain(warning))
	})
	if err != nil {
		return nil, err
	}
	return &saCluster{api, accounts, f, s}, nil
}

func (c *saCluster) token(ctx context.Context, w *saWant) (string, error) {
	text, err := c.accounts.Token(ctx, kube.TokenRequest{
		Namespace: w.namespace, Name: w.name, UID: w.uid, Audiences: w.audiences, Life: w.life,
		Kind: w.kind.Kind, APIVersion: w.kind.APIVersion, BoundName: w.bound.Name, BoundUID: w.bound.UID, Attestations: w.attestations,
	})
	return text, adviseAccount(err, w, "create serviceaccounts/token")
}

func (c *saCluster) secret(ctx context.Context, w *saWant) (*corev1.Secret, error) {
	a := kube.AccountSecret{Namespace: w.namespace, Account: w.name, UID: w.uid, Name: w.secret}
	o, made, err := c.accounts.Fill(ctx, a, w.timeout)
	if made {
		fmt.Fprintf(c.in.err, "made Secret %s/%s\n", w.namespace, w.secret)
	}
	return o, adviseAccount(err, w, "create and get secrets, and to get serviceaccounts")
}

// apiAudiences: the API server alone knows them, and by default they are its
// issuers.
func (c *saCluster) apiAudiences(issuer string) []string { return []string{issuer} }

// anchors are those that pods of the namespace get.
func (c *saCluster) anchors(ctx context.Context, namespace string) ([]byte, error) {
	if c.flags.ca != "" {
		return readAnchors(c.in, c.flags.ca)
	}
	published, err := c.accounts.RootCA(ctx, namespace)
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return published, adviseAPI(err, "")
	}
	ca, failed := c.api.authorities()
	if failed == nil && len(ca) == 0 {
		failed = advise(err, "name the authorities with --certificate-authority")
	}
	if failed == nil {
		fmt.Fprintf(c.in.err, "kubepki: warning: %s: the authorities are those of your kubeconfig\n", report.Plain(err.Error()))
	}
	return ca, failed
}

// target is a kubeconfig without names of users and credential.
func (c *saCluster) target(server string) (layout.KubeconfigSpec, error) {
	spec, err := c.api.target(server)
	if err == nil && c.flags.ca != "" {
		spec.CA, err = readAnchors(c.in, c.flags.ca)
	}
	spec.Cluster = catalog.DefaultClusterName
	return spec, err
}

// adviseAccount adds to an error of the cluster what can be done about it.
func adviseAccount(err error, w *saWant, rights string) error {
	switch {
	case errors.Is(err, kube.ErrNoServiceAccount):
		return advise(err, "kubectl create serviceaccount -n %s %s makes it", w.namespace, w.name)
	case errors.Is(err, kube.ErrNotFilled):
		return advise(err, "see that kube-controller-manager runs, with --service-account-private-key-file; then run the same command again")
	case errors.Is(err, kube.ErrOtherSecret):
		return advise(err, "name another with --secret-name")
	case errors.Is(err, kube.ErrInvalidated):
		return advise(err, "kubectl delete secret -n %s %s, and run the same command again", w.namespace, w.secret)
	case apierrors.IsNotFound(err):
		return err
	}
	return adviseAPI(err, "give yourself the right to "+rights+" in namespace "+w.namespace)
}
