package main

import (
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/shim"
)

// shimFlags are those of the parts "ingress-shim" and "gateway-shim", by the names that
// cert-manager gives them.
type shimFlags struct{ shim.Defaults }

func (o *shimFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.Issuer.Name, "default-issuer-name", "", "issuer of annotated objects that name none")
	f.StringVar(&o.Issuer.Kind, "default-issuer-kind", cmapi.IssuerKind, "kind of that issuer")
	f.StringVar(&o.Issuer.Group, "default-issuer-group", cmapi.SchemeGroupVersion.Group, "group of that issuer")
	f.StringSliceVar(&o.Auto, "auto-certificate-annotations", []string{shim.TLSACME}, "annotations with which an Ingress asks for a certificate of the default issuer")
	f.StringSliceVar(&o.Extra, "extra-certificate-annotations", nil, "annotations that Certificates take over from what they are made of")
	f.StringSliceVar(&o.Protocols, "gateway-extra-protocols", nil, "protocols of listeners that end TLS, beside HTTPS and TLS")
}

func (o *controllerOptions) prepareShim(*controllerRun) error {
	f := &o.shim
	if f.Issuer.Name != "" && f.Issuer.Kind == "" {
		return usagef("--default-issuer-kind: name a kind")
	}
	if slices.Contains(f.Auto, "") || slices.Contains(f.Extra, "") {
		return usagef("--auto-certificate-annotations, --extra-certificate-annotations: there is an empty name")
	}
	return nil
}

// shimLoops makes the loop of the part "ingress-shim" or "gateway-shim".
func (r *controllerRun) shimLoops(ingresses, gateways bool) ([]controller.Loop, error) {
	client, err := certmanager.NewClient(r.config)
	if err != nil {
		return nil, err
	}
	loop := certmanager.NewShim(certmanager.ShimOptions{
		Client: client, Ingresses: ingresses, Gateways: gateways, Defaults: r.o.shim.Defaults, Log: r.log,
		Events: certmanager.NewEvents(r.lasting, client.Kube),
	})
	if ingresses {
		r.ingressShim.Store(loop)
	} else {
		r.gatewayShim.Store(loop)
	}
	return []controller.Loop{loop}, nil
}

func (r *controllerRun) ingressLoops() ([]controller.Loop, error) { return r.shimLoops(true, false) }

func (r *controllerRun) gatewayLoops() ([]controller.Loop, error) { return r.shimLoops(false, true) }
