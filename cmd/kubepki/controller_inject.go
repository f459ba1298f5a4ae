package main

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
)

// injectFlags are those of the part "cainjector".
type injectFlags struct{ keep bool }

func (o *injectFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.keep, "inject-keep-old", true, "leave certificates in a caBundle that its source no longer holds until they end; false writes what the source holds and nothing else")
}

func (o *controllerOptions) prepareInject(r *controllerRun) error {
	r.injectMetrics = certmanager.NewInjectMetrics(r.registry, r.injector.Load)
	return nil
}

// injectLoops makes the loop of the part "cainjector".
func (r *controllerRun) injectLoops() ([]controller.Loop, error) {
	client, err := certmanager.NewClient(r.config)
	if err != nil {
		return nil, err
	}
	loop := certmanager.NewInjector(certmanager.InjectorOptions{
		Client: client, APIServerCA: r.apiServerCA, Replace: !r.o.inject.keep, Log: r.log, Metrics: r.injectMetrics,
	})
	r.injector.Store(loop)
	return []controller.Loop{loop}, nil
}

// apiServerCA is the authority by which this process knows the API server, as it is now.
func (r *controllerRun) apiServerCA() ([]byte, error) {
	if len(r.config.CAData) > 0 || r.config.CAFile == "" {
		return r.config.CAData, nil
	}
	return os.ReadFile(r.config.CAFile)
}
