package main

import (
	"context"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
)

type renewAPI struct{ kubeconfig string }

func (a *renewAPI) add(f *pflag.FlagSet) {}
func (a *renewAPI) on() bool             { return a.kubeconfig != "" }
func (a *renewAPI) check() error         { return nil }
func (a *renewAPI) run(ctx context.Context, o *renewOptions, s streams, n *trustNodes, items []*renew.Item, before *check.Result, at time.Time) error {
	return nil
}
