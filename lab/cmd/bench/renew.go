//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kubeadmTree makes what kubeadm makes for a first control plane, its static pods
// among it, for kubepki reads from them who uses what.
func (b *bench) kubeadmTree(algorithm string) (string, error) {
	root, err := b.fresh(algorithm)
	if err != nil {
		return "", err
	}
	for _, phase := range [][]string{{"certs", "all"}, {"kubeconfig", "all"}, {"control-plane", "all"}, {"etcd", "local"}} {
		args := append([]string{"--rootfs=" + root, "init", "phase"}, phase...)
		if _, err := b.command(kubeadmAlone, append(args, "--config=/kubeadm.yaml")...); err != nil {
			return "", err
		}
	}
	return root, nil
}

// copyOf is a tree like another one, on the disk already.
func (b *bench) copyOf(tree string) (string, error) {
	b.made++
	root := filepath.Join(b.temp, fmt.Sprintf("%d-copy", b.made))
	if err := os.CopyFS(root, os.DirFS(tree)); err != nil {
		return "", err
	}
	unix.Sync() // what the copy leaves to be written is nobody's time
	return root, nil
}

// pairedRenew compares the renewal of all of a control plane, each pair on two copies
// of one tree that kubeadm made. kubeadm renews eleven; kubepki these and kubelet.conf,
// and judges all links before and after.
func (b *bench) pairedRenew() error {
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256"} {
		tree, err := b.kubeadmTree(algorithm)
		if err != nil {
			return err
		}
		var ours, theirs, ratios, processor []float64
		for i := range b.pairs {
			mine, other, err := b.onePair(tree, i%2 == 1)
			if err != nil {
				return fmt.Errorf("pair %d: %w", i+1, err)
			}
			ours, theirs, ratios = append(ours, ms(mine.wall)), append(theirs, ms(other.wall)), append(ratios, ms(mine.wall)/ms(other.wall))
			processor = append(processor, ms(mine.cpu)/ms(other.cpu))
		}
		wanted := map[string]string{"RSA-2048": "ratio ≤ 0.6"}[algorithm]
		b.add(fmt.Sprintf("`kubepki renew --all` against `kubeadm certs renew all`, one control plane, %s, %d pairs", algorithm, b.pairs), wanted,
			"%.0f ms against %.0f ms; median of the pairs' ratios %.2f (from %.2f to %.2f); of processor time %.2f",
			median(ours), median(theirs), median(ratios), slices.Min(ratios), slices.Max(ratios), median(processor))
	}
	return nil
}

// onePair renews both copies, kubeadm first where it is told, and sees that both
// did.
func (b *bench) onePair(tree string, kubeadmFirst bool) (ours, theirs usage, err error) {
	var roots [2]string
	for i := range roots {
		if roots[i], err = b.copyOf(tree); err != nil {
			return ours, theirs, err
		}
		defer os.RemoveAll(roots[i])
	}
	runs := []func() error{
		func() (err error) {
			ours, err = b.command("kubepki", "renew", "--all", "--root="+roots[0], "--yes")
			return err
		},
		func() (err error) {
			theirs, err = b.command(kubeadmAlone, "--rootfs="+roots[1], "certs", "renew", "all", "--config=/kubeadm.yaml")
			return err
		},
	}
	if kubeadmFirst {
		slices.Reverse(runs)
	}
	for _, next := range runs {
		if err := next(); err != nil {
			return ours, theirs, err
		}
	}
	for _, root := range roots {
		if err := allRenewed(tree, root); err != nil {
			return ours, theirs, err
		}
	}
	return ours, theirs, nil
}

// renewedFiles are some of what both renew: keys and a kubeconfig among them.
var renewedFiles = []string{"pki/apiserver.crt", "pki/apiserver.key", "pki/apiserver-kubelet-client.crt", "pki/front-proxy-client.key", "pki/etcd/server.crt", "pki/etcd/peer.key", "pki/etcd/healthcheck-client.crt", "admin.conf", "scheduler.conf"}

func allRenewed(before, after string) error {
	for _, name := range renewedFiles {
		was, err := os.ReadFile(filepath.Join(before, "etc/kubernetes", name))
		if err != nil {
			return err
		}
		is, err := os.ReadFile(filepath.Join(after, "etc/kubernetes", name))
		if err != nil {
			return err
		}
		if string(was) == string(is) {
			return fmt.Errorf("%s was not renewed", filepath.Join(after, name))
		}
	}
	return nil
}

// manyRenewed plans, and makes, the renewal of a cluster of many nodes in one call.
func (b *bench) manyRenewed() error {
	dir, err := os.MkdirTemp(b.temp, "many")
	if err != nil {
		return err
	}
	var config strings.Builder
	config.WriteString("apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\ncontrolPlaneEndpoint: api.example.test:6443\nencryptionAlgorithm: ECDSA-P256\ncertificateValidityPeriod: 720h\ncontrolPlanes:\n")
	for i := range 3 {
		fmt.Fprintf(&config, "- {name: cp%d, address: 10.0.0.%d}\n", i+1, i+11)
	}
	config.WriteString("workers:\n")
	for i := range b.folders - 3 {
		fmt.Fprintf(&config, "- {name: w%d, address: 10.1.%d.%d}\n", i+1, i/250, i%250+1)
	}
	file, cluster := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "cluster")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return err
	}
	// All of it is due: a life of 30 days began 29 days ago.
	then := time.Now().AddDate(0, 0, -29).UTC().Format(time.RFC3339)
	if _, err := b.command("kubepki", "init", "--config="+file, "--out="+cluster, "--manifests", "--at="+then); err != nil {
		return err
	}
	for _, c := range []struct {
		what string
		code int // with which it may end
		args []string
	}{
		{"the plan alone (`--dry-run`), `--due`", 3, []string{"--due", "--dry-run"}},
		{"the plan alone (`--dry-run`), `--all`", 3, []string{"--all", "--dry-run"}},
		{"renewed and written, `--all`", 0, []string{"--all", "--yes"}},
	} {
		used, err := b.pending(c.code, "kubepki", append([]string{"renew", "--root=" + cluster}, c.args...)...)
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("`kubepki renew` of %d nodes' folders in one plan, ECDSA-P256: %s, 1 run", b.folders, c.what), "", "%.1f s (%.1f s of processor time), peak %d MiB", used.wall.Seconds(), used.cpu.Seconds(), used.maxRSS>>10)
	}
	return nil
}
