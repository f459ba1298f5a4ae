package main

import (
	"context"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cert-manager/cert-manager/internal/cainjector/feature"
	"github.com/cert-manager/cert-manager/pkg/api"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/util"
)

// injector is cmd/cainjector of cert-manager.
func injector(flags *pflag.FlagSet) func(context.Context) error {
	kubeconfig := flags.String("kubeconfig", "", "")
	elect := flags.Bool("leader-elect", true, "")
	namespace := flags.String("leader-election-namespace", "kube-system", "")
	return func(ctx context.Context) error {
		config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
		if err != nil {
			return err
		}
		manager, err := ctrl.NewManager(util.RestConfigWithUserAgent(config, "cainjector"), ctrl.Options{
			Scheme: api.Scheme, LeaderElection: *elect, LeaderElectionNamespace: *namespace, LeaderElectionID: "cert-manager-cainjector-leader-election",
			LeaderElectionReleaseOnCancel: true, Logger: klog.FromContext(ctx), Metrics: server.Options{BindAddress: "0"},
			Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		})
		if err != nil {
			return err
		}
		all := map[string]bool{}
		for _, kind := range []string{
			cainjector.MutatingWebhookConfigurationName, cainjector.ValidatingWebhookConfigurationName, cainjector.APIServiceName, cainjector.CustomResourceDefinitionName,
		} {
			all[kind] = true
		}
		err = cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{EnableCertificatesDataSource: true, EnabledReconcilersFor: all})
		if err != nil {
			return err
		}
		return manager.Start(ctx)
	}
}

// The feature gates of cainjector are known by being imported.
var _ = feature.ServerSideApply
