package proxyclient

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// Options are those of kube-proxy that its client needs.
type Options struct {
	ConfigFile string // a KubeProxyConfiguration: its kubeconfig and its healthz address
	Node       string // the node's name
	// Failures takes one line for each list or watch that failed: the time in RFC
	// 3339, the resource and the error.
	Failures io.Writer
}

// Main runs the client with the flags of kube-proxy's command line, without the
// program's name, until it is interrupted. It returns the exit code.
func Main(args []string) int {
	o := Options{Failures: os.Stdout}
	flags := flag.NewFlagSet("kube-proxy-client", flag.ContinueOnError)
	flags.StringVar(&o.ConfigFile, "config", "", "KubeProxyConfiguration")
	flags.StringVar(&o.Node, "hostname-override", "", "name of the node")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "kube-proxy-client: %v\n", err)
		return 1
	}
	return 0
}

// Run watches until the context ends. An error tells that it could not start; a
// watch that fails is tried again and told to Options.Failures.
func Run(ctx context.Context, o Options) error {
	config, err := readConfig(o.ConfigFile)
	if err != nil {
		return err
	}
	rest, err := clientcmd.BuildConfigFromFlags("", config.ClientConnection.Kubeconfig)
	if err != nil {
		return err
	}
	api, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	w := &watcher{failures: o.Failures}
	if err := w.start(ctx, api, o.Node); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", config.HealthzBindAddress)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: w, ReadTimeout: time.Second}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { <-ctx.Done(); return server.Close() })
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return group.Wait()
}

func readConfig(path string) (*proxyconfig.KubeProxyConfiguration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &proxyconfig.KubeProxyConfiguration{}
	if err := yaml.UnmarshalStrict(data, config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return config, nil
}

// watcher knows whether its watches go on.
type watcher struct {
	mu       sync.Mutex
	failures io.Writer
	synced   []cache.InformerSynced
	failed   time.Time // of the last failure
}

// settled is how long no list or watch may have failed for the client to be
// well. A failed one is tried again after at most 30 seconds (backoff of
// cache.Reflector in k/client-go).
const settled = 30 * time.Second

// start starts the informers that kube-proxy has (ProxyServer.Run in k/k
// cmd/kube-proxy/app/server.go).
func (w *watcher) start(ctx context.Context, api kubernetes.Interface, node string) error {
	all := informers.NewSharedInformerFactory(api, 0)
	own := informers.NewSharedInformerFactoryWithOptions(api, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, node).String()
	}))
	for resource, informer := range map[string]cache.SharedIndexInformer{
		"services":       all.Core().V1().Services().Informer(),
		"endpointslices": all.Discovery().V1().EndpointSlices().Informer(),
		"nodes":          own.Core().V1().Nodes().Informer(),
	} {
		w.synced = append(w.synced, informer.HasSynced)
		if err := informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) { w.fail(resource, err) }); err != nil {
			return err
		}
	}
	all.Start(ctx.Done())
	own.Start(ctx.Done())
	return nil
}

// fail takes the end of a watch. That the server ended it, or no longer knows
// the version to go on from, is no failure (DefaultWatchErrorHandler in
// k/client-go tools/cache/reflector.go).
func (w *watcher) fail(resource string, err error) {
	if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = time.Now()
	fmt.Fprintf(w.failures, "%s %s: %v\n", w.failed.UTC().Format(time.RFC3339Nano), resource, err)
}

// ServeHTTP answers /healthz.
func (w *watcher) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	for _, synced := range w.synced {
		if !synced() {
			http.Error(rw, "not everything is listed yet", http.StatusServiceUnavailable)
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.failed) < settled {
		http.Error(rw, "a watch failed at "+w.failed.UTC().Format(time.RFC3339Nano), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(rw, "ok")
}
