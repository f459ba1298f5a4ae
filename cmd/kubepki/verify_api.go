package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// apiSource is the API of the cluster that is verified.
type apiSource struct {
	access  kube.Access
	timeout time.Duration
	alone   bool // no node was given
}

// withAPI adds the API of --kubeconfig to the cluster. Where no node was named, this
// machine is looked at only if it is one.
func (o *verifyOptions) withAPI(clusters []cluster, named bool) ([]cluster, error) {
	switch {
	case o.access.Kubeconfig == "" && o.access.Context != "":
		return nil, usagef("--context: name the kubeconfig too, with --kubeconfig")
	case o.access.Kubeconfig == "":
		return clusters, nil
	case len(clusters) > 1:
		return nil, usagef("--kubeconfig is of one cluster, and %d are given", len(clusters))
	}
	c := &clusters[0]
	if !named && len(o.roots) == 0 && !layout.IsRoot("/") {
		c.nodes = nil
	}
	c.api = &apiSource{access: o.access, timeout: o.live.timeout, alone: len(c.nodes) == 0}
	return clusters, nil
}

// read asks the API, and adds what it tells to the nodes. That it cannot be reached, or
// that nothing of it may be read, is an error when there is nothing else to judge.
func (s *apiSource) read(ctx context.Context, nodes []trust.Node, at time.Time) ([]trust.Node, error) {
	if s == nil {
		return nodes, nil
	}
	config, err := configure(s.access)
	if err != nil {
		return nil, err
	}
	o := kube.ObjectOptions{Timeout: s.timeout, At: at, Keys: verifyKeys(nodes)}
	if s.alone {
		o.Own = &s.access
	}
	api, err := kube.ReadObjects(ctx, config, o)
	var unreachable *kube.UnreachableError
	switch {
	case errors.As(err, &unreachable) && !s.alone && ctx.Err() == nil:
		api = trust.Node{Name: trust.ClusterNode, Layout: trust.ClusterNode, Objects: &trust.Objects{
			Server: unreachable.Server, Unreachable: unreachable.Err.Error(), Stranger: errors.Is(err, kube.ErrStranger),
		}}
	case err != nil:
		return nil, err
	case s.alone && len(api.NotSeen) > 0 && !slices.ContainsFunc(api.Objects.Sources, func(x trust.Source) bool { return x.Count > 0 }):
		// Nothing was judged, which must not look like health.
		return nil, fmt.Errorf("the API server %s answers, but nothing of what it holds could be looked at: %s, and %d more",
			api.Objects.Server, strings.TrimPrefix(api.NotSeen[0].Reason, "could not look at "), len(api.NotSeen)-1)
	}
	return append(slices.Clip(nodes), api), nil
}

// verifyKeys are the public keys with which the nodes' API servers verify tokens.
func verifyKeys(nodes []trust.Node) []crypto.PublicKey {
	var keys []crypto.PublicKey
	for i := range nodes {
		for _, m := range nodes[i].Materials {
			if m.Role == trust.RoleVerifyKeys && m.OK() {
				keys = append(keys, m.Keys...)
			}
		}
	}
	return keys
}
