package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/join"
	"github.com/kubepki/kubepki/internal/kubeevents"
	"github.com/kubepki/kubepki/internal/kubewatch"
	"github.com/kubepki/kubepki/mtls"
)

// agentShowFlags say where the agent shows what it knows, and of which cluster.
type agentShowFlags struct {
	listen                     string
	certificate, key, clientCA string
	noRelative                 bool
	most                       int

	objects    bool
	secrets    []string
	selector   string
	namespaces []string
	excluded   []string
	events     bool
}

func (o *agentShowFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", agent.DefaultListen, "with --watch or --renew: address of the status page, /metrics, /healthz and /readyz; empty: none")
	f.StringVar(&o.certificate, "tls-cert-file", "", "certificate of that address (PEM); default: plain HTTP")
	f.StringVar(&o.key, "tls-private-key-file", "", "its key (PEM)")
	f.StringVar(&o.clientCA, "client-ca-file", "", "authorities of those who may ask there (PEM); default: everybody who reaches it")
	f.BoolVar(&o.noRelative, "no-relative-metrics", false, "leave out x509_cert_expires_in_seconds and x509_cert_valid_since_seconds, which change at each scrape")
	f.IntVar(&o.most, "max-certificates", agent.DefaultMaxCertificates, "how many certificates have metrics, and how many of the cluster's are kept")
	f.BoolVar(&o.objects, "cluster-certificates", false, "with --cluster-kubeconfig: follow the certificates of the cluster's Secrets, ConfigMaps and caBundles too")
	f.StringArrayVar(&o.secrets, "secret-type", []string{`kubernetes.io/tls:(tls|ca)\.crt`}, "Secrets that are followed, as TYPE[:REGEX] with a pattern of their keys; repeatable; empty: none")
	f.StringVar(&o.selector, "secret-selector", "", "label selector of Secrets")
	f.StringSliceVar(&o.namespaces, "include-namespace", nil, "namespaces whose Secrets are followed (default: all)")
	f.StringSliceVar(&o.excluded, "exclude-namespace", nil, "namespaces whose objects are not followed")
	f.BoolVar(&o.events, "events", false, "with --cluster-kubeconfig: make Events on Nodes and Secrets")
}

// alone refuses what shows nothing, as nothing is watched.
func (o *agentShowFlags) alone() error {
	switch {
	case o.objects:
		return usagef("--cluster-certificates: goes with --watch or --renew")
	case o.events:
		return usagef("--events: goes with --watch or --renew")
	case o.certificate != "" || o.key != "" || o.clientCA != "":
		return usagef("--tls-cert-file: goes with --watch or --renew: nothing is served without")
	}
	return nil
}

// loop runs until the context ends.
type loop = func(context.Context) error

// loops are what shows a board. config is nil where no cluster is called. Everything
// that can be wrong is wrong now.
func (o *agentShowFlags) loops(b *agent.Board, config *rest.Config, nodeName string, log *slog.Logger) ([]loop, error) {
	if err := o.check(config); err != nil {
		return nil, err
	}
	var all []loop
	var watch *kubewatch.Watch
	if o.objects {
		var err error
		if watch, err = o.watch(config, log); err != nil {
			return nil, err
		}
		b.Include(watch)
		all = append(all, watch.Run)
	}
	if o.events {
		events, err := o.teller(b, config, nodeName, watch, log)
		if err != nil {
			return nil, err
		}
		all = append(all, events.Run)
	}
	if o.listen != "" {
		serve, err := o.serve(b, log)
		if err != nil {
			return nil, err
		}
		all = append(all, serve)
	}
	return all, nil
}

func (o *agentShowFlags) check(config *rest.Config) error {
	switch {
	case o.objects && config == nil:
		return usagef("--cluster-certificates: goes with --cluster-kubeconfig")
	case o.events && config == nil:
		return usagef("--events: goes with --cluster-kubeconfig")
	case (o.certificate == "") != (o.key == ""):
		return usagef("--tls-cert-file and --tls-private-key-file belong together")
	case o.clientCA != "" && o.certificate == "":
		return usagef("--client-ca-file: goes with --tls-cert-file and --tls-private-key-file")
	case o.most < 1:
		return usagef("--max-certificates: %d is less than 1", o.most)
	}
	return checkListen("listen", o.listen)
}

func (o *agentShowFlags) watch(config *rest.Config, log *slog.Logger) (*kubewatch.Watch, error) {
	w := kubewatch.Options{Secrets: []kubewatch.Secrets{}, Selector: o.selector, Namespaces: o.namespaces, Excluded: o.excluded, MaxCertificates: o.most, Log: log}
	for _, text := range o.secrets {
		if text == "" {
			continue
		}
		s, err := kubewatch.ParseSecrets(text)
		if err != nil {
			return nil, usagef("--secret-type: %w", err)
		}
		w.Secrets = append(w.Secrets, s)
	}
	watch, err := kubewatch.New(config, w)
	if err != nil {
		return nil, usagef("--secret-selector: %w", err)
	}
	return watch, nil
}

func (o *agentShowFlags) teller(b *agent.Board, config *rest.Config, nodeName string, watch *kubewatch.Watch, log *slog.Logger) (*kubeevents.Teller, error) {
	if nodeName == "" {
		var err error
		if nodeName, err = join.DefaultNodeName(); err != nil {
			return nil, err
		}
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	e := kubeevents.Options{Events: client.EventsV1(), Node: nodeName, Log: log}
	if watch != nil {
		e.UID = watch.UID
	}
	return kubeevents.New(b, e), nil
}

// serve listens at once, so that an address that is taken is said at the start.
func (o *agentShowFlags) serve(b *agent.Board, log *slog.Logger) (loop, error) {
	config, err := o.tls(log)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, advise(err, "--listen names another address, or is empty for none")
	}
	m := agent.NewMetrics(b, agent.MetricsOptions{Version: versionText(), Revision: revision(), MaxCertificates: o.most, NoRelative: o.noRelative})
	log.Info("serving the status page and metrics", "address", l.Addr().String(), "tls", config != nil)
	return func(ctx context.Context) error { return agent.Serve(ctx, l, config, agent.Handler(b, m), log) }, nil
}

// tls is nil for plain HTTP.
func (o *agentShowFlags) tls(log *slog.Logger) (*tls.Config, error) {
	if o.certificate == "" {
		return nil, nil
	}
	told := func(r mtls.Reload) {
		if r.Err != nil {
			log.Warn("files of --listen were not taken up: what was before stays", "files", r.Files, "error", r.Err)
			return
		}
		log.Info("files of --listen were taken up", "files", r.Files)
	}
	source, err := mtls.OpenFiles(mtls.Files{Certificate: o.certificate, Key: o.key, Bundle: o.clientCA, Usage: x509.ExtKeyUsageServerAuth}, told)
	if err != nil {
		return nil, err
	}
	clients := mtls.NoClients
	if o.clientCA != "" {
		clients = mtls.RequireClients
	}
	return mtls.ServerConfig(source, clients), nil
}

// revision is that of the source, where the program was built from a repository.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// roundLimit is how long one round of an agent may take that goes round at an interval.
func roundLimit(interval time.Duration) time.Duration { return max(agent.StuckAfter, 15*interval) }
