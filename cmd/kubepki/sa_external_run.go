package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/jwtsigner"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
	"github.com/kubepki/kubepki/internal/unixsocket"
)

// saExternalRun is what one process has opened.
type saExternalRun struct {
	log      *slog.Logger
	keys     *jwtsigner.Keys
	server   *jwtsigner.Server
	socket   net.Listener
	listener net.Listener // nil: none
	registry *prometheus.Registry
}

// prepare opens all that is needed, so that what is wrong is said at the start.
func (o *saExternalOptions) prepare(s streams) (*saExternalRun, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, usagef("--log-level: there is no level %q: use debug, info, warn or error", o.level)
	}
	users, others, err := o.allowed()
	if err != nil {
		return nil, err
	}
	r := &saExternalRun{log: slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level})), registry: prometheus.NewRegistry()}
	if err := o.open(r); err != nil {
		return nil, err
	}
	if o.metrics != "" {
		if r.listener, err = net.Listen("tcp", o.metrics); err != nil {
			return nil, err
		}
	}
	mode := os.FileMode(0o600)
	if others {
		mode = 0o666 // the kernel says who they are
	}
	r.socket, err = unixsocket.Listen(o.socket, unixsocket.Options{Users: users, Mode: mode, Connections: jwtsigner.MaxConnections, Log: r.log})
	if errors.Is(err, unixsocket.ErrAbstract) {
		err = advise(usagef("--socket: %w", err), "while this process does not run, any other could take the name, and kube-apiserver would believe its keys: use a path below /run")
	}
	return r, err
}

// open reads the keys and makes the server.
func (o *saExternalOptions) open(r *saExternalRun) error {
	files := jwtsigner.Files{Signing: o.signing, Published: o.published, Legacy: o.legacy}
	if name, ok := strings.CutPrefix(o.signing, "kms:"); ok {
		key, err := signers.Key(o.kmsSocket, name)
		if err != nil {
			return err
		}
		files.Signing, files.Held = "", key
	} else if info, err := os.Stat(o.signing); err == nil && info.Mode().Perm()&0o044 != 0 {
		r.log.Warn("others than its owner can read the signing key: chmod 0600", "file", o.signing, "mode", info.Mode().Perm().String())
	}
	var err error
	if r.keys, err = jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: files, PublishFirst: o.first, Log: r.log}); err != nil {
		return err
	}
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), jwtsigner.KeyMetrics(r.keys))
	r.server, err = jwtsigner.NewServer(jwtsigner.Config{
		Policy: jwtsigner.Policy{Issuers: o.issuers, MaxLife: o.maxLife}, Keys: r.keys, RefreshHint: o.refresh,
		Metrics: jwtsigner.NewMetrics(r.registry), Log: r.log,
	})
	return err
}

// run serves until the context ends. What is to be seen of the process goes on
// until the last signature is made.
func (r *saExternalRun) run(ctx context.Context) error {
	defer r.socket.Close() //nolint:errcheck // Serve has closed it, unless it never ran
	side, endSide := context.WithCancel(context.WithoutCancel(ctx))
	loops := []controller.Loop{loopFunc(func(ctx context.Context) error {
		defer endSide()
		return r.server.Serve(ctx, r.socket)
	})}
	if r.listener != nil {
		health := &controller.Health{Listener: r.listener, Live: func(*http.Request) error { return nil }, Ready: notStopping(ctx), Metrics: r.registry}
		loops = append(loops, detached(side, []controller.Loop{health})...)
	}
	r.log.Info("listening", "socket", r.socket.Addr().String(), "key", r.keys.Signer().Key().ID, "process", syscall.Getpid())
	return controller.RunAll(ctx, loops...)
}
