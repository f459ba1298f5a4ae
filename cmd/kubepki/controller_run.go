package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// controllerRun is what the parts of one process share.
type controllerRun struct {
	o        *controllerOptions
	streams  streams
	config   *rest.Config
	client   kubernetes.Interface
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *controller.Metrics
	events   controller.Events
	election *leaderelection.HealthzAdaptor
	csr      csrPart
	pods     podPart
	current  atomic.Pointer[controller.CSR] // of this term as the leader
	listener net.Listener
	lasting  context.Context // ends when the process has finished
	stop     context.CancelFunc

	acme            acmePart
	workloads       atomic.Pointer[certmanager.Controller] // of this term as the leader
	workloadMetrics *certmanager.Metrics
	workloadPolicy  *livePolicy[*workload.Policy]        // nil: none
	injector        atomic.Pointer[certmanager.Injector] // of this term as the leader
	injectMetrics   *certmanager.InjectMetrics
	ingressShim     atomic.Pointer[certmanager.Shim] // of this term as the leader
	gatewayShim     atomic.Pointer[certmanager.Shim]
}

// prepare opens all that is needed, so that what is wrong is said at the start.
func (o *controllerOptions) prepare(ctx context.Context, s streams, chosen []part) (*controllerRun, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, usagef("--log-level: there is no level %q: use debug, info, warn or error", o.level)
	}
	if err := checkListen("listen", o.listen); err != nil {
		return nil, err
	}
	r := &controllerRun{o: o, streams: s, log: slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level}))}
	r.registry = prometheus.NewRegistry()
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.metrics = controller.NewMetrics(r.registry)
	r.registry.MustRegister(controller.QueueMetrics(r.current.Load))
	for _, p := range chosen {
		if err := p.prepare(o, r); err != nil {
			return nil, err
		}
	}
	var err error
	if r.config, err = o.access.Connect(); err != nil {
		return nil, err
	}
	r.config.UserAgent = "kubepki-controller"
	r.config.WarningHandler = rest.NoWarnings{} // that a version is old is for us to know, not at each call
	r.config.ContentType = "application/vnd.kubernetes.protobuf"
	r.config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	if r.client, err = kubernetes.NewForConfig(r.config); err != nil {
		return nil, err
	}
	if r.pods.issuer != nil {
		if r.pods.issuer.Client, err = certmanager.NewClient(r.config); err != nil {
			return nil, err
		}
	}
	klog.SetSlogLogger(r.log) // client-go's
	r.election = leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
	if o.listen != "" {
		if r.listener, err = net.Listen("tcp", o.listen); err != nil {
			return nil, err
		}
	}
	events, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.events, r.lasting, r.stop = controller.NewEvents(events, r.client), events, stop
	return r, nil
}

// checkListen refuses what is no address, so that it is wrong usage and not a
// port that is taken.
func checkListen(flag, address string) error {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return usagef("--%s: %q is not of the form ADDRESS:PORT: %w", flag, address, err)
	}
	return nil
}

func (r *controllerRun) close() {
	r.stop()
	if r.listener != nil {
		_ = r.listener.Close() // Health has closed it, unless it never ran
	}
}

// run serves what is to be seen of the process, and lets the parts work while it
// is the leader.
func (r *controllerRun) run(ctx context.Context, chosen []part) error {
	side, endSide := context.WithCancel(context.WithoutCancel(ctx))
	var beside []controller.Loop
	if r.listener != nil {
		beside = append(beside, &controller.Health{Listener: r.listener, Live: r.election.Check, Ready: r.ready, Metrics: r.registry})
	}
	if r.pods.issuer != nil {
		beside = append(beside, r.pods.issuer)
	}
	if r.csr.policy != nil {
		beside = append(beside, r.csr.policy)
	}
	if r.workloadPolicy != nil {
		beside = append(beside, r.workloadPolicy)
	}
	if r.csr.log != nil {
		beside = append(beside, r.csr.log)
		stop := reopen(r.csr.log, r.log)
		defer stop()
	}
	if r.acme.enabled {
		answering, err := r.acme.open(r.config)
		if err != nil {
			endSide()
			return err
		}
		beside = append(beside, answering...)
	}
	// What is beside goes on until the parts have finished what they had begun.
	work := func(ctx context.Context) error {
		defer endSide()
		return r.lead(ctx, chosen)
	}
	return controller.RunAll(ctx, append(detached(side, beside), loopFunc(work))...)
}

// loopFunc is a function that is a loop.
type loopFunc func(context.Context) error

func (f loopFunc) Run(ctx context.Context) error { return f(ctx) }

// detached are loops that run until another context ends.
func detached(until context.Context, loops []controller.Loop) []controller.Loop {
	var all []controller.Loop
	for _, l := range loops {
		all = append(all, loopFunc(func(context.Context) error { return l.Run(until) }))
	}
	return all
}

// lead runs the parts, as the leader where one is elected.
func (r *controllerRun) lead(ctx context.Context, chosen []part) error {
	work := func(ctx context.Context) error {
		var all []controller.Loop
		for _, p := range chosen {
			loops, err := p.build(r)
			if err != nil {
				return err
			}
			all = append(all, loops...)
		}
		return controller.RunAll(ctx, all...)
	}
	if !r.o.lease.elect {
		r.metrics.Leading(true)
		return work(ctx)
	}
	e := controller.Election{
		Client: r.client, Namespace: r.o.lease.namespace, Name: r.o.lease.name, Identity: r.o.lease.identity,
		Log: r.log, Metrics: r.metrics, Health: r.election,
	}
	if e.Namespace == "" {
		e.Namespace = ownNamespace()
	}
	if e.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		e.Identity = host + "_" + strings.ToLower(rand.Text()[:8])
	}
	return e.Run(ctx, work)
}

// ownNamespace is the one of the pod that this process runs in.
func ownNamespace() string {
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if name := strings.TrimSpace(string(data)); err == nil && name != "" {
		return name
	}
	return "kube-system"
}

// ready tells why this process does not work; one that waits for the lease is
// ready.
func (r *controllerRun) ready(*http.Request) error {
	if loop := r.current.Load(); loop != nil && !loop.Synced() {
		return errors.New("the list of requests or of nodes is not complete yet")
	}
	if loop := r.workloads.Load(); loop != nil && !loop.Synced() {
		return errors.New("the lists of Certificates and what belongs to them are not complete yet")
	}
	if loop := r.injector.Load(); loop != nil && !loop.Synced() {
		return errors.New("the lists of what has caBundles are not complete yet")
	}
	for _, shim := range []*atomic.Pointer[certmanager.Shim]{&r.ingressShim, &r.gatewayShim} {
		if loop := shim.Load(); loop != nil && !loop.Synced() {
			return errors.New("the lists of Ingresses, Gateways and their Certificates are not complete yet")
		}
	}
	return nil
}

// authorities are the keys that nobody may ask a certificate for: those by which
// the API server is known.
func (r *controllerRun) authorities() [][32]byte {
	config := rest.CopyConfig(r.config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil
	}
	certificates, err := trust.ParseCertificates(config.CAData)
	if err != nil {
		return nil
	}
	var all [][32]byte
	for _, c := range certificates {
		all = append(all, sha256.Sum256(c.RawSubjectPublicKeyInfo))
	}
	return all
}

// reopen opens the issuance log anew at each SIGHUP, until stop is called.
func reopen(l *controller.IssuanceLog, log *slog.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			if err := l.Reopen(); err != nil {
				log.Error("the issuance log was not opened anew", "error", err.Error())
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
	}
}
