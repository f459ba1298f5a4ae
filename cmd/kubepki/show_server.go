package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// serverAddress tells whether an argument names a server: HOST:PORT or
// https://HOST:PORT, and no file of that name.
func serverAddress(arg string) (address string, ok bool) {
	if exists(arg) {
		return "", false
	}
	address = strings.TrimSuffix(strings.TrimPrefix(arg, "https://"), "/")
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || strings.ContainsAny(host, "/ ") {
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false
	}
	return address, true
}

// showServer shows what a server presents. One that presents nothing is an error.
func (o *showOptions) showServer(ctx context.Context, address string, at time.Time) (shown, error) {
	seen := probe.Look(ctx, address, o.serverName, probe.Options{Timeout: o.timeout})
	if ctx.Err() != nil {
		return shown{}, ctx.Err()
	}
	if seen.Outcome != trust.Answered {
		return shown{}, fmt.Errorf("%s: %s", address, seen.Reason)
	}
	return shown{value: report.NewServer(&seen, o.serverName, at), certificates: trust.EncodeCertificates(seen.Chain...)}, nil
}
