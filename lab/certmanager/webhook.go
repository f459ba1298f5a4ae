package main

import (
	"context"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	certmanagerwebhook "github.com/cert-manager/cert-manager/internal/webhook"
	_ "github.com/cert-manager/cert-manager/internal/webhook/feature"
	"github.com/cert-manager/cert-manager/pkg/webhook/options"
)

// webhook is cmd/webhook of cert-manager.
func webhook(flags *pflag.FlagSet) func(context.Context) error {
	config, err := options.NewWebhookConfiguration()
	if err != nil {
		return func(context.Context) error { return err }
	}
	flags.StringVar(&config.KubeConfig, "kubeconfig", "", "")
	flags.Int32Var(&config.SecurePort, "secure-port", config.SecurePort, "")
	flags.Int32Var(&config.HealthzPort, "healthz-port", config.HealthzPort, "")
	flags.StringVar(&config.MetricsListenAddress, "metrics-listen-address", config.MetricsListenAddress, "")
	flags.StringVar(&config.TLSConfig.Filesystem.CertFile, "tls-cert-file", "", "")
	flags.StringVar(&config.TLSConfig.Filesystem.KeyFile, "tls-private-key-file", "", "")
	return func(ctx context.Context) error {
		server, err := certmanagerwebhook.NewCertManagerWebhookServer(klog.FromContext(ctx), *config)
		if err != nil {
			return err
		}
		return server.Run(ctx)
	}
}
