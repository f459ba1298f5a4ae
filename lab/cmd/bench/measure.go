//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kubeadmAlone is kubeadm as its own program, which people run. The lab's is linked with
// all other components, whose packages it sets up at each start: three times the start.
const kubeadmAlone = "kubeadm-alone"

// kubeadmConfig names all that kubeadm would else ask the machine for.
const kubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: cp1}
localAPIEndpoint: {advertiseAddress: 10.99.0.11, bindPort: 6443}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
encryptionAlgorithm: %s
`

// bench collects the rows of the table.
type bench struct {
	options
	temp string
	made int // folders made so far, for their names
	rows []row
}

// row is one line of the table.
type row struct{ what, result, wanted string }

func (b *bench) add(what, wanted, format string, args ...any) {
	b.rows = append(b.rows, row{what, fmt.Sprintf(format, args...), wanted})
	fmt.Fprintf(os.Stderr, "%s: %s\n", what, fmt.Sprintf(format, args...))
}

// usage is what one run of a program took.
type usage struct {
	wall   time.Duration
	cpu    time.Duration // of all cores, user and system
	maxRSS int64         // KiB
}

// command runs a program of the build folder. Its output is thrown away, but
// for the errors of a run that fails.
func (b *bench) command(name string, args ...string) (usage, error) {
	return b.pending(0, name, args...)
}

// pending is command for one that may end with another exit code than 0: what is
// pending after a dry run.
func (b *bench) pending(code int, name string, args ...string) (usage, error) {
	cmd := exec.Command(filepath.Join(b.build, name), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	started := time.Now()
	err := cmd.Run()
	wall := time.Since(started)
	if err != nil && (code == 0 || cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code) {
		return usage{}, fmt.Errorf("%s %q: %w: %s", name, args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return usage{}, fmt.Errorf("%s: the system tells no resource usage", name)
	}
	return usage{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), used.Maxrss}, nil
}

// fresh makes a root folder that holds the configuration and nothing else.
func (b *bench) fresh(algorithm string) (string, error) {
	b.made++
	root := filepath.Join(b.temp, strconv.Itoa(b.made))
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	return root, os.WriteFile(filepath.Join(root, "kubeadm.yaml"), fmt.Appendf(nil, kubeadmConfig, algorithm), 0o600)
}

// kubepkiInit runs kubepki init in a fresh root and returns that.
func (b *bench) kubepkiInit(algorithm string) (string, usage, error) {
	root, err := b.fresh(algorithm)
	if err != nil {
		return "", usage{}, err
	}
	used, err := b.command("kubepki", "init", "--root="+root, "--config="+filepath.Join(root, "kubeadm.yaml"))
	return root, used, err
}

// kubeadmInit runs the two phases of kubeadm that make the same files.
func (b *bench) kubeadmInit(algorithm string) (usage, error) {
	root, err := b.fresh(algorithm)
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, phase := range []string{"certs", "kubeconfig"} {
		used, err := b.command(kubeadmAlone, "--rootfs="+root, "init", "phase", phase, "all", "--config=/kubeadm.yaml")
		if err != nil {
			return usage{}, err
		}
		sum.wall += used.wall
		sum.maxRSS = max(sum.maxRSS, used.maxRSS)
	}
	return sum, nil
}

// pairedInit compares whole inits.
func (b *bench) pairedInit() error {
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256"} {
		var ours, theirs, ratios []float64
		for i := range b.pairs {
			var mine, other usage
			var errMine, errOther error
			mineRun := func() { _, mine, errMine = b.kubepkiInit(algorithm) }
			otherRun := func() { other, errOther = b.kubeadmInit(algorithm) }
			order := []func(){mineRun, otherRun}
			if i%2 == 1 {
				slices.Reverse(order)
			}
			for _, next := range order {
				next()
			}
			if errMine != nil || errOther != nil {
				return fmt.Errorf("pair %d: %w", i+1, errorOf(errMine, errOther))
			}
			ours, theirs = append(ours, ms(mine.wall)), append(theirs, ms(other.wall))
			ratios = append(ratios, ms(mine.wall)/ms(other.wall))
		}
		wanted := map[string]string{"RSA-2048": "ratio ≤ 0.6"}[algorithm]
		b.add(fmt.Sprintf("`kubepki init` against `kubeadm init phase certs all` and `kubeconfig all`, %s, %d pairs", algorithm, b.pairs), wanted,
			"%.0f ms against %.0f ms; ratio %.2f (of pairs: %.2f, from %.2f to %.2f)",
			median(ours), median(theirs), median(ours)/median(theirs), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	return nil
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// single measures single processes.
func (b *bench) single() error {
	if err := b.repeat("`kubepki version`", "≤ 25 ms", func() (usage, error) { return b.command("kubepki", "version") }); err != nil {
		return err
	}
	err := b.repeat("`kubepki init --root`, ECDSA-P256", "≤ 60 ms", func() (usage, error) {
		_, used, err := b.kubepkiInit("ECDSA-P256")
		return used, err
	})
	if err != nil {
		return err
	}
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256"} {
		root, _, err := b.kubepkiInit(algorithm)
		if err != nil {
			return err
		}
		err = b.repeat("`kubepki verify --root` of one control plane, "+algorithm, "≤ 60 ms", func() (usage, error) {
			return b.command("kubepki", "verify", "--root="+root)
		})
		if err != nil {
			return err
		}
		if err := b.manyNodes(algorithm); err != nil {
			return err
		}
	}
	return nil
}

// manyNodes verifies one cluster of three control planes and fifty workers.
func (b *bench) manyNodes(algorithm string) error {
	dir, err := os.MkdirTemp(b.temp, "nodes")
	if err != nil {
		return err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\ncontrolPlaneEndpoint: api.example.test:6443\nencryptionAlgorithm: %s\ncontrolPlanes:\n", algorithm)
	for i := range 3 {
		fmt.Fprintf(&config, "- {name: cp%d, address: 10.0.0.%d}\n", i+1, i+11)
	}
	config.WriteString("workers:\n")
	for i := range 50 {
		fmt.Fprintf(&config, "- {name: w%d, address: 10.0.1.%d}\n", i+1, i+1)
	}
	file := filepath.Join(dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return err
	}
	cluster := filepath.Join(dir, "cluster")
	if _, err := b.command("kubepki", "init", "--config="+file, "--out="+cluster, "--manifests"); err != nil {
		return err
	}
	return b.repeat("`kubepki verify` of three control planes and fifty workers, "+algorithm, "≤ 1 s", func() (usage, error) {
		return b.command("kubepki", "verify", cluster)
	})
}

// repeat runs something as often as the pairs, after one run to warm up.
func (b *bench) repeat(what, wanted string, once func() (usage, error)) error {
	var times []float64
	var rss int64
	for i := range b.pairs + 1 {
		used, err := once()
		if err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		times, rss = append(times, ms(used.wall)), max(rss, used.maxRSS)
	}
	b.add(fmt.Sprintf("%s, %d runs", what, b.pairs), wanted, "%.0f ms (from %.0f to %.0f), peak %d MiB",
		median(times), slices.Min(times), slices.Max(times), rss>>10)
	return nil
}

// manyFolders verifies many clusters in one call.
func (b *bench) manyFolders() error {
	var roots []string
	for range b.folders {
		root, _, err := b.kubepkiInit("ECDSA-P256")
		if err != nil {
			return err
		}
		// A cluster folder holds nothing but the node's files.
		if err := os.Remove(filepath.Join(root, "kubeadm.yaml")); err != nil {
			return err
		}
		roots = append(roots, root)
	}
	for _, n := range []int{b.folders / 10, b.folders} {
		var times []float64
		var rss int64
		for range 3 {
			used, err := b.command("kubepki", append([]string{"verify", "-o=json"}, roots[:n]...)...)
			if err != nil {
				return err
			}
			times, rss = append(times, ms(used.wall)), max(rss, used.maxRSS)
		}
		b.add(fmt.Sprintf("`kubepki verify DIR…` of %d cluster folders in one call, ECDSA-P256, 3 runs", n), "flat",
			"%.0f ms, %.2f ms per folder, peak %d MiB", median(times), median(times)/float64(n), rss>>10)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
