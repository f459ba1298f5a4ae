//go:build linux

// Command bench-workloads measures kubepki controller --enable workloads on a cluster
// that is there, such as one of kubepki-lab: Certificates of a CA issuer with ECDSA keys,
// from the first that is created to the last that is ready; the same writes bare, as the
// floor; memory; and what a controller does that starts anew with all in order. With
// -cert-manager the real cert-manager of lab/certmanager issues Certificates before it, in
// the same cluster: as it is by default, and with 20 workers and no limits.
//
// The CRDs of cert-manager must be in the cluster. It makes a namespace of its own, and
// removes it. What takes minutes can be made once (-keep), and its restart be measured
// alone, as often as wanted (-filled).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/internal/certmanager"
)

// options are what is measured.
type options struct {
	kubeconfig  string
	program     string
	certManager string
	peerCount   int
	count       int
	writers     int
	floor       bool
	keep        bool
	filled      string
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "of somebody who may do everything")
	flag.StringVar(&o.program, "kubepki", filepath.Join(".build", "kubepki"), "the program")
	flag.StringVar(&o.certManager, "cert-manager", "", "the real cert-manager, which is measured first (.build/cert-manager); empty: it is not")
	flag.IntVar(&o.peerCount, "cert-manager-n", 300, "Certificates that it issues, each time")
	flag.IntVar(&o.count, "n", 2000, "Certificates")
	flag.IntVar(&o.writers, "writers", 32, "that create Certificates, or do the bare writes, at the same time")
	flag.BoolVar(&o.floor, "floor", true, "measure the bare writes too")
	flag.BoolVar(&o.keep, "keep", false, "leave what was made, and say in which namespace")
	flag.StringVar(&o.filled, "filled", "", "namespace that -keep has left: nothing but a restart is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-workloads:", err)
		stop()
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	if config, err = asAccount(ctx, config); err != nil {
		return fmt.Errorf("a service account: %w", err)
	}
	folder, err := os.MkdirTemp("", "bench-workloads")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if o.kubeconfig, err = kubeconfigOf(config, folder); err != nil {
		return err
	}
	client, err := certmanager.NewClient(config)
	if err != nil {
		return err
	}
	b := &bench{options: o, client: client}
	if o.filled != "" {
		namespace = o.filled
		return b.restart(ctx)
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if o.keep {
		fmt.Println("namespace:", namespace)
	} else {
		defer b.tidy()
	}
	var four, five float64
	if o.floor {
		if four, five, err = b.bare(ctx); err != nil {
			return fmt.Errorf("bare writes: %w", err)
		}
		fmt.Printf("bare writes: %.0f/s (create request, update its status, apply Secret, update status), %.0f/s with the Certificate created too; %d at a time\n", four, five, o.writers)
	}
	if o.certManager != "" {
		if err := b.peers(ctx); err != nil {
			return err
		}
	}
	if err := b.issuance(ctx, b.ours(), four, five); err != nil {
		return err
	}
	return b.restart(ctx)
}

// peers has cert-manager issue, as it is by default and with its limits lifted.
func (b *bench) peers(ctx context.Context) error {
	peer := *b
	peer.count = b.peerCount
	for _, who := range []subject{peer.theirs(), peer.theirsLifted()} {
		if err := peer.issuance(ctx, who, 0, 0); err != nil {
			return err
		}
		if err := peer.clear(ctx); err != nil {
			return err
		}
	}
	return nil
}

// perSecond is a rate.
func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }
