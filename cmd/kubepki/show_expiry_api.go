package main

import (
	"context"
	"fmt"

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
	t.AddObjects(&node)
	certificates, err := kube.TLSSecrets(ctx, config, o.timeout)
	if err != nil {
		return err
	}
	t.AddMaterials(certificates)
	tokens, err := kube.NewTokens(config)
	if err != nil {
		return err
	}
	secrets, err := tokens.List(ctx)
	if err != nil {
		return err
	}
	for i := range secrets {
		e := bootstrap.Read(&secrets[i], t.At)
		t.AddBootstrapToken(e.Name, e.Created, e.Expires)
	}
	if len(node.NotSeen) > 0 {
		return fmt.Errorf("%d sources of the API could not be looked at", len(node.NotSeen))
	}
	return nil
}
