package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/cert-manager/cert-manager/internal/controller/feature"
	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	"github.com/cert-manager/cert-manager/pkg/controller"
	gateways "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/gateways"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	csrca "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/ca"
	csrselfsigned "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	utilfeature "github.com/cert-manager/cert-manager/pkg/util/feature"
)

type controllerOptions struct {
	controller.ContextOptions
	names                        []string
	workers                      int
	leaderElect                  bool
	leaderElectionNamespace      string
	healthAddress, metricAddress string
}

// controllers is cmd/controller of cert-manager.
func controllers(flags *pflag.FlagSet) func(context.Context) error {
	o := &controllerOptions{}
	o.DefaultIssuerKind, o.DefaultIssuerGroup, o.DefaultAutoCertificateAnnotations = "Issuer", certmanager.GroupName, []string{"kubernetes.io/tls-acme"}
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "")
	flags.Float32Var(&o.KubernetesAPIQPS, "kube-api-qps", 20, "")
	flags.IntVar(&o.KubernetesAPIBurst, "kube-api-burst", 50, "")
	flags.StringVar(&o.Namespace, "namespace", "", "")
	flags.StringVar(&o.ClusterResourceNamespace, "cluster-resource-namespace", "kube-system", "")
	flags.StringSliceVar(&o.names, "controllers", []string{"*"}, "as cert-manager's: * for those that are on by default, -NAME for one that is not to run")
	flags.IntVar(&o.workers, "concurrent-workers", 5, "")
	flags.BoolVar(&o.EnableOwnerRef, "enable-certificate-owner-ref", false, "")
	flags.BoolVar(&o.EnableGatewayAPI, "enable-gateway-api", false, "")
	flags.DurationVar(&o.CertificateRequestMinimumBackoffDuration, "certificate-request-minimum-backoff-duration", time.Hour, "")
	flags.DurationVar(&o.CertificateRequestMaximumBackoffDuration, "certificate-request-maximum-backoff-duration", 32*time.Hour, "")
	flags.StringSliceVar(&o.CopiedAnnotationPrefixes, "copied-annotation-prefixes", []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"}, "")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "")
	flags.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", "kube-system", "")
	flags.StringVar(&o.metricAddress, "metrics-listen-address", "0.0.0.0:9402", "")
	flags.StringVar(&o.healthAddress, "internal-healthz-listen-address", "0.0.0.0:9403", "")
	return o.run
}

func (o *controllerOptions) run(ctx context.Context) error {
	factory, err := controller.NewContextFactory(ctx, o.ContextOptions)
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	if err := o.serve(ctx, group, shared); err != nil {
		return err
	}
	if err := o.elected(ctx, group, factory); err != nil {
		return err
	}
	for name, make := range controller.Known() {
		if !o.enabled(name) {
			continue
		}
		c, err := make(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		group.Go(func() error { return c.Run(o.workers, ctx) })
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	if o.EnableGatewayAPI {
		shared.GWShared.Start(ctx.Done())
	}
	return group.Wait()
}

// enabled tells whether a controller runs, by the flags and cert-manager's defaults.
func (o *controllerOptions) enabled(name string) bool {
	csr := name == csrca.CSRControllerName || name == csrselfsigned.CSRControllerName
	switch {
	case slices.Contains(o.names, "-"+name), o.Namespace != "" && (csr || name == clusterissuers.ControllerName):
		return false
	case slices.Contains(o.names, name):
		return true
	case csr:
		return utilfeature.DefaultFeatureGate.Enabled(feature.ExperimentalCertificateSigningRequestControllers)
	case name == gateways.ControllerName:
		return o.EnableGatewayAPI && slices.Contains(o.names, "*")
	}
	return slices.Contains(o.names, "*")
}

// serve answers for metrics and probes.
func (o *controllerOptions) serve(ctx context.Context, group *errgroup.Group, shared *controller.Context) error {
	informers := shared.SharedInformerFactory.Certmanager().V1()
	shared.Metrics.SetupCertificateCollector(informers.Certificates().Lister())
	shared.Metrics.SetupIssuerCollector(informers.Issuers().Lister())
	if o.Namespace == "" {
		shared.Metrics.SetupClusterIssuerCollector(informers.ClusterIssuers().Lister())
	}
	live := http.NewServeMux()
	live.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	for address, server := range map[string]func(net.Listener) *http.Server{
		o.metricAddress: shared.Metrics.NewServer,
		o.healthAddress: func(net.Listener) *http.Server {
			return &http.Server{Handler: live, ReadHeaderTimeout: 10 * time.Second}
		},
	} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		s := server(listener)
		group.Go(func() error {
			if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		context.AfterFunc(ctx, func() { _ = s.Close() })
	}
	return nil
}

// elected returns when this process is the leader, and has the group end when it is not
// any more.
func (o *controllerOptions) elected(ctx context.Context, group *errgroup.Group, factory *controller.ContextFactory) error {
	if !o.leaderElect {
		return nil
	}
	c, err := factory.Build("leader-election")
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	leads := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: o.leaderElectionNamespace, Name: "cert-manager-controller"}, Client: c.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "-external-cert-manager-controller", EventRecorder: c.Recorder},
		},
		LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 15 * time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(leads) }, OnStoppedLeading: func() {}},
	})
	if err != nil {
		return err
	}
	group.Go(func() error {
		elector.Run(ctx)
		if ctx.Err() == nil {
			return errors.New("leader election lost")
		}
		return nil
	})
	select {
	case <-leads:
		return nil
	case <-ctx.Done():
		return group.Wait()
	}
}
