package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

type tokenVerifyOptions struct {
	token    tokenFlags
	server   string
	file     string
	pins     []string
	unpinned bool
	timeout  time.Duration
	output   string
}

func newTokenVerifyCommand(s streams) *cobra.Command {
	var o tokenVerifyOptions
	c := &cobra.Command{
		Use:   "verify",
		Short: "Prove what a node proves before it joins: that a cluster is the token's and the pins'",
		Long: `Prove what a node proves before it joins, without joining: the API server's
cluster-info is signed with the token, holds an authority that is pinned, and
comes from a server that this authority vouches for. With --cluster-info the
ConfigMap is read from a file, and no server is asked.`,
		Example: `  # Would a node believe this cluster?
  kubepki token verify --server 10.0.0.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:1234...

  # Does the load balancer lead to the same cluster?
  kubepki token verify --server lb.example.test:6443 --token-file token --discovery-token-ca-cert-hash sha256:1234... -o json

  # What kubepki token create --manifests wrote
  kubepki token verify --cluster-info bootstrap.yaml --token-file token --discovery-token-ca-cert-hash sha256:1234...`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	o.token.add(f)
	f.StringVar(&o.server, "server", "", "HOST:PORT or URL of the API server")
	f.StringVar(&o.file, "cluster-info", "", "file that holds the ConfigMap cluster-info, among others or alone; -: standard input")
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "pin of an authority, sha256:HEX; repeatable, one of them has to fit")
	f.BoolVar(&o.unpinned, "discovery-token-unsafe-skip-ca-verification", false, "go without a pin: whoever knows the token can pose as the cluster")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for the server, and for a signature that is not there yet")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

func (o *tokenVerifyOptions) run(ctx context.Context, s streams) error {
	if err := checkTokenOutput(o.output); err != nil {
		return err
	}
	d, err := o.discovery(s)
	if err != nil {
		return err
	}
	var info *bootstrap.ClusterInfo
	if o.file != "" {
		info, err = o.fromFile(s, d)
	} else {
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		d.Retry = 500 * time.Millisecond
		info, err = kube.Discover(ctx, *d)
	}
	if err != nil {
		return err
	}
	return o.print(s, info, d.Pins)
}

func (o *tokenVerifyOptions) discovery(s streams) (*bootstrap.Discovery, error) {
	d := &bootstrap.Discovery{Unpinned: o.unpinned}
	switch {
	case (o.server == "") == (o.file == ""):
		return nil, usagef("name the cluster with one of --server and --cluster-info")
	case len(o.pins) == 0 && !o.unpinned:
		return nil, usagef("name the authority with --discovery-token-ca-cert-hash, or allow --discovery-token-unsafe-skip-ca-verification")
	case o.timeout <= 0:
		return nil, usagef("--timeout %s is no time to wait", o.timeout)
	case o.token.file == "-" && o.file == "-":
		return nil, usagef("--token-file and --cluster-info cannot both be standard input")
	}
	for _, text := range o.pins {
		p, err := bootstrap.ParsePin(text)
		if err != nil {
			return nil, usagef("--discovery-token-ca-cert-hash: %w", err)
		}
		d.Pins = append(d.Pins, p)
	}
	var err error
	if o.server != "" {
		if d.Endpoint, err = bootstrap.Endpoint("https://" + strings.TrimPrefix(o.server, "https://")); err != nil {
			return nil, usagef("--server: %w", err)
		}
	}
	d.Token, err = o.token.need(s)
	return d, err
}

func (o *tokenVerifyOptions) fromFile(s streams, d *bootstrap.Discovery) (*bootstrap.ClusterInfo, error) {
	data, err := readInput(s, o.file)
	if err != nil {
		return nil, fmt.Errorf("--cluster-info: %w", err)
	}
	m, err := findClusterInfo(data)
	if err != nil {
		return nil, fmt.Errorf("--cluster-info %s: %w", o.file, err)
	}
	info, err := bootstrap.ReadClusterInfo(m.Data, d.Token)
	if err == nil && !o.unpinned && len(info.Pinned(d.Pins)) == 0 {
		err = bootstrap.ErrNotPinned
	}
	if err != nil {
		return nil, fmt.Errorf("cluster-info: %w", err)
	}
	return info, nil
}

// findClusterInfo looks for the ConfigMap among the documents of a file. What
// does not parse is not repeated: it may be the Secret of a token.
func findClusterInfo(data []byte) (*corev1.ConfigMap, error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for i := 1; ; i++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it holds no ConfigMap cluster-info")
		}
		var m corev1.ConfigMap
		if err != nil || yaml.Unmarshal(document, &m) != nil {
			// A Secret has other data, and is not meant.
			var kind struct{ Kind string }
			if err == nil && yaml.Unmarshal(document, &kind) == nil && kind.Kind != "ConfigMap" {
				continue
			}
			return nil, fmt.Errorf("document %d is no object of Kubernetes", i)
		}
		if m.Kind == "ConfigMap" && m.Name == "cluster-info" {
			return &m, nil
		}
	}
}

func (o *tokenVerifyOptions) print(s streams, info *bootstrap.ClusterInfo, pins []bootstrap.Pin) error {
	type authority struct {
		Subject  string `json:"subject"`
		NotAfter string `json:"notAfter"`
		Pin      string `json:"pin"`
		Pinned   bool   `json:"pinned"`
	}
	answer := struct {
		APIVersion  string      `json:"apiVersion"`
		Kind        string      `json:"kind"`
		Server      string      `json:"server"`
		Authorities []authority `json:"authorities"`
	}{report.APIVersion, "ClusterInfo", info.Server, nil}
	pinned := info.Pinned(pins)
	for _, c := range info.Anchors {
		one := authority{Subject: c.Subject.String(), NotAfter: timeText(c.NotAfter), Pin: bootstrap.PinOf(c).String()}
		for _, p := range pinned {
			one.Pinned = one.Pinned || p.Equal(c)
		}
		answer.Authorities = append(answer.Authorities, one)
	}
	if o.output != "table" {
		return report.Document(s.out, o.output, answer)
	}
	var rows [][]string
	for _, a := range answer.Authorities {
		rows = append(rows, []string{report.Plain(a.Subject), a.NotAfter, a.Pin, map[bool]string{true: "yes", false: "no"}[a.Pinned]})
	}
	if _, err := fmt.Fprintf(s.out, "%s is the cluster of the token\n\n", report.Plain(info.Server)); err != nil {
		return err
	}
	return report.Table(s.out, []string{"AUTHORITY", "UNTIL", "PIN", "PINNED"}, rows)
}
