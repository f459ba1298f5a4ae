package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenfile"
)

// tokenServer is one server of sa serve.
type tokenServer struct {
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *saserver.Metrics
	keys     *tokenfile.Source
	pair     *mtls.FileSource
	config   *tls.Config
	handler  http.Handler
}

func (o *saServeOptions) serve(ctx context.Context, s streams) error {
	r, err := o.prepare(ctx, s)
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer func() { _ = public.Close() }() // Serve has closed it, unless it never ran
	side, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var beside []controller.Loop
	if o.metricsListen != "" {
		l, err := net.Listen("tcp", o.metricsListen)
		if err != nil {
			return advise(err, "--metrics-listen names another address, or none")
		}
		defer func() { _ = l.Close() }()
		beside = append(beside, &controller.Health{Listener: l, Live: func(*http.Request) error { return nil }, Ready: notStopping(ctx), Metrics: r.registry})
		r.log.Info("metrics", "address", l.Addr().String())
	}
	r.log.Info("serving", "address", public.Addr().String(), "issuer", o.tokens.issuers[0], "keys", keyIDs(r.keys), "reviews", o.review)
	// What is beside goes on until the requests have come to their end.
	work := func(ctx context.Context) error {
		defer end()
		return saserver.Serve(ctx, public, r.config, r.handler, r.log)
	}
	return controller.RunAll(ctx, append(detached(side, beside), loopFunc(work))...)
}

func notStopping(ctx context.Context) func(*http.Request) error {
	return func(*http.Request) error {
		if ctx.Err() != nil {
			return errors.New("stopping")
		}
		return nil
	}
}

// prepare opens all that is needed, so that what is wrong is said at the start.
func (o *saServeOptions) prepare(ctx context.Context, s streams) (*tokenServer, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, usagef("--log-level: there is no level %q: use debug, info, warn or error", o.level)
	}
	r := &tokenServer{log: slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level})), registry: prometheus.NewRegistry()}
	var err error
	if r.keys, err = o.tokens.open(r.toldKeys); err != nil {
		return nil, err
	}
	if r.pair, err = o.openServing(r.toldServing); err != nil {
		return nil, err
	}
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.metrics = saserver.NewMetrics(r.registry, r.keys, r.pair)
	documents, err := o.documents(ctx, r)
	if err != nil {
		return nil, err
	}
	reviews, err := o.reviews(r)
	if err != nil {
		return nil, err
	}
	clients := mtls.NoClients
	if o.clientCA != "" {
		clients = mtls.UnverifiedClients // the documents are for everybody; of reviews, Callers sees to it
	}
	r.config, r.handler = mtls.ServerConfig(r.pair, clients), saserver.Handler(documents, reviews)
	return r, nil
}

// openServing opens what the server shows, and whom it trusts.
func (o *saServeOptions) openServing(told func(mtls.Reload)) (*mtls.FileSource, error) {
	for _, f := range []struct{ flag, name string }{{"tls-cert-file", o.certificate}, {"tls-private-key-file", o.key}, {"client-ca-file", o.clientCA}} {
		if f.name == "" {
			continue
		}
		if err := checkFile(f.flag, f.name); err != nil {
			return nil, err
		}
	}
	return mtls.OpenFiles(mtls.Files{Certificate: o.certificate, Key: o.key, Bundle: o.clientCA, Usage: x509.ExtKeyUsageServerAuth}, told)
}

// documents returns what publishes the issuer: nil where nobody could discover
// it, as tokens of such an issuer can be reviewed all the same.
func (o *saServeOptions) documents(ctx context.Context, r *tokenServer) (*saserver.Publisher, error) {
	if err := token.CheckIssuerURL(o.tokens.issuers[0]); err != nil && o.review && o.jwks == "" {
		r.log.Warn("the issuer cannot be discovered: its documents are not served", "why", err.Error())
		return nil, nil
	}
	p, err := saserver.NewPublisher(ctx, r.keys, o.publication())
	if err != nil {
		return nil, adviseURLs(err)
	}
	for _, w := range o.unreachable() {
		r.log.Warn("others cannot find the documents", "why", w)
	}
	return p, nil
}

// reviews returns what answers TokenReviews; nil: nothing.
func (o *saServeOptions) reviews(r *tokenServer) (*saserver.Reviewer, error) {
	if !o.review {
		return nil, nil
	}
	verifier, err := o.tokens.verifier(r.keys)
	if err != nil {
		return nil, err
	}
	v := &saserver.Reviewer{Tokens: verifier, UsernamePrefix: o.usernamePrefix, GroupsPrefix: o.groupsPrefix, Log: r.log, Metrics: r.metrics}
	if o.cacheLife > 0 {
		if v.Tokens, err = token.NewCache(verifier, token.CacheConfig{Size: o.cacheSize, Life: o.cacheLife}); err != nil {
			return nil, err
		}
	}
	if o.clientCA == "" {
		r.log.Warn("without --client-ca-file whoever reaches this server can try tokens: name the authorities of those who may ask, or use --review=false")
		return v, nil
	}
	v.Callers = &saserver.Callers{Source: r.pair, Names: o.allowedNames}
	return v, nil
}

// toldKeys and toldServing write what becomes of changed files to the log.
func (r *tokenServer) toldKeys(err error) {
	r.metrics.Reloaded("keys", err)
	if err != nil {
		r.log.Error("changed keys were not taken up", "error", err.Error())
		return
	}
	r.log.Info("changed keys were taken up", "keys", keyIDs(r.keys))
}

func (r *tokenServer) toldServing(e mtls.Reload) {
	r.metrics.Reloaded("serving", e.Err)
	if e.Err != nil {
		r.log.Error("changed files were not taken up", "files", e.Files, "error", e.Err.Error())
		return
	}
	r.log.Info("changed files were taken up", "files", e.Files)
}

func keyIDs(source token.KeySource) []string {
	set, err := source.Keys(context.Background(), "")
	if err != nil {
		return nil
	}
	var ids []string
	for _, k := range set.All() {
		ids = append(ids, k.ID)
	}
	return ids
}
