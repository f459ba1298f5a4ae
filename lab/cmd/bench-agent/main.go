// Command bench-agent measures what kubepki agent takes of a machine on which nothing
// happens: memory, and processor time over a minute. It prints a Markdown table, and fails
// where more was ever resident than is wanted.
//
// Usage: bench-agent [-kubepki PROGRAM] [-certificates N] [-for DURATION]
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	program := flag.String("kubepki", "../.build/kubepki", "the program")
	certificates := flag.Int("certificates", 10_000, "how many files with a certificate are watched")
	length := flag.Duration("for", time.Minute, "over which time the processor's is measured")
	flag.Parse()
	if err := bench(*program, *certificates, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench-agent:", err)
		os.Exit(1)
	}
}

func bench(program string, certificates int, length time.Duration) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-agent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	made := exec.Command(program, "init", "--out", filepath.Join(dir, "c"), "--manifests", "--control-plane-endpoint=api.example.test",
		"--control-plane=cp1=10.0.0.11", "--control-plane=cp2=10.0.0.12", "--control-plane=cp3=10.0.0.13")
	if out, err := made.CombinedOutput(); err != nil {
		return fmt.Errorf("init: %w: %s", err, out)
	}
	many := filepath.Join(dir, "many")
	if err := fill(many, certificates); err != nil {
		return err
	}
	api, err := newSecretsAPI(many)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "agent.conf")
	stop, err := api.serve(kubeconfig)
	if err != nil {
		return err
	}
	defer stop()
	roots := func(names ...string) (args []string) {
		for _, n := range names {
			args = append(args, "--root", n+"="+filepath.Join(dir, "c", n))
		}
		return args
	}
	fmt.Println("| `kubepki agent` | resident, median | of that the program's own pages | processor time | right after /metrics was read | at most, ever |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, row := range []struct {
		name string
		args []string
	}{
		{"one control plane, `--watch`", append([]string{"--watch"}, roots("cp1")...)},
		{"one control plane, `--renew due`", append([]string{"--renew", "due"}, roots("cp1")...)},
		{fmt.Sprintf("three control planes and %d files by `--path`", certificates), append([]string{"--watch", "--path", many}, roots("cp1", "cp2", "cp3")...)},
		{fmt.Sprintf("one control plane and %d Secrets by `--cluster-certificates`", certificates), append([]string{"--watch", "--cluster-kubeconfig", kubeconfig, "--cluster-certificates"}, roots("cp1")...)},
	} {
		if err := measure(program, row.name, row.args, length); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return nil
}

// fill makes a folder of files, each with a certificate of its own.
func fill(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench-ca"}, NotBefore: now, NotAfter: now.AddDate(10, 0, 0)}
	for i := range n {
		name := fmt.Sprintf("service-%05d.namespace.svc", i)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1<<40 + int64(i)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		}, ca, &key.PublicKey, key)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.crt", i)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// wanted is what may be resident at any moment, in bytes.
const wanted = 40_000_000

func measure(program, name string, args []string, length time.Duration) error {
	const listen = "127.0.0.1:19793"
	agent := exec.Command(program, append([]string{"agent", "--listen", listen}, args...)...)
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = agent.Wait()
	}()
	// The second round reads once more what had just been written.
	time.Sleep(75 * time.Second)
	before, err := processorTime(agent.Process.Pid)
	if err != nil {
		return err
	}
	var seen []int
	for range 20 {
		time.Sleep(length / 20)
		kib, _, _, err := resident(agent.Process.Pid)
		if err != nil {
			return err
		}
		seen = append(seen, kib)
	}
	after, err := processorTime(agent.Process.Pid)
	if err != nil {
		return err
	}
	_, file, _, err := resident(agent.Process.Pid)
	if err != nil {
		return err
	}
	if err := scrape("http://" + listen + "/metrics"); err != nil {
		return err
	}
	scraped, _, most, err := resident(agent.Process.Pid)
	if err != nil {
		return err
	}
	median := middle(seen)
	used := after - before
	fmt.Printf("| %s | %.1f MiB | %.1f MiB | %d ms in %s, %.3f %% of a core | %.1f MiB | %.1f MiB |\n", name, mib(median), mib(file),
		used.Milliseconds(), length, 100*used.Seconds()/length.Seconds(), mib(scraped), mib(most))
	if most<<10 > wanted {
		return fmt.Errorf("%d KiB were resident, and %d bytes are wanted at most", most, wanted)
	}
	return nil
}

func mib(kib int) float64 { return float64(kib) / 1024 }

func middle(all []int) int {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// resident reads VmRSS, RssFile and VmHWM, in KiB: the last is the most that VmRSS ever
// was, by the kernel's own count.
func resident(pid int) (all, file, most int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0] == "VmRSS:":
			all, err = strconv.Atoi(fields[1])
		case fields[0] == "RssFile:":
			file, err = strconv.Atoi(fields[1])
		case fields[0] == "VmHWM:":
			most, err = strconv.Atoi(fields[1])
		}
		if err != nil {
			return 0, 0, 0, err
		}
	}
	return all, file, most, nil
}

// processorTime is that of a process, to the nanosecond, all threads.
func processorTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		spent, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += spent
	}
	return time.Duration(sum), nil
}

func scrape(url string) error {
	answer, err := http.Get(url) //nolint:gosec // loopback
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || n == 0) {
		err = fmt.Errorf("%s: %s, %d bytes", url, answer.Status, n)
	}
	return err
}
