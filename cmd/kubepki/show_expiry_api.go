package main

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

// addAPI adds what the API of a cluster holds: the bundles and tokens that verify
// looks at, certificates of TLS Secrets, bootstrap tokens. What may not be read is
// named, and is an error: nobody may think that nothing is there.
func (o *showOptions) addAPI(ctx context.Context, s streams, t *report.Timeline) error {
	config, err := configure(o.expiry.access)
	if err != nil {
		return err
	}
	node, err := kube.ReadObjects(ctx, config, kube.ObjectOptions{Timeout: o.timeout, At: t.At, Own: &o.expiry.access})
	if err != nil {
		return err
	}
	for _, n := range node.NotSeen {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(n.Reason))
	}
	t.AddObjects(&node, config.Host)
	var errs []error
	if len(node.NotSeen) > 0 {
		errs = append(errs, fmt.Errorf("%d sources of the API could not be looked at", len(node.NotSeen)))
	}
	certificates, err := kube.TLSSecrets(ctx, config, o.timeout)
	if err != nil {
		errs = append(errs, err)
	}
	t.AddMaterials(certificates, config.Host)
	return errors.Join(append(errs, addBootstrapTokens(ctx, config, t))...)
}

func addBootstrapTokens(ctx context.Context, config *rest.Config, t *report.Timeline) error {
	tokens, err := kube.NewTokens(config)
	if err != nil {
		return err
	}
	secrets, err := tokens.List(ctx)
	for i := range secrets {
		e := bootstrap.Read(&secrets[i], t.At)
		t.AddBootstrapToken(e.Name, config.Host, e.Created, e.Expires)
	}
	return err
}
