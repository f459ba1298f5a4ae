//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// controller is kubepki controller as a process.
type controller struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

const health = "127.0.0.1:8088"

// withController runs the controller while something is done.
func (b *bench) withController(ctx context.Context, do func(*controller) error) error {
	pki := filepath.Join(b.folder.Root("cp1"), "etc/kubernetes/pki")
	c := &controller{cmd: exec.CommandContext(ctx, filepath.Join(b.build, "kubepki"), "controller",
		"--kubeconfig="+filepath.Join(b.folder.Root("cp1"), "etc/kubernetes/super-admin.conf"),
		"--cluster-signing-cert-file="+filepath.Join(pki, "ca.crt"), "--cluster-signing-key-file="+filepath.Join(pki, "ca.key"),
		"--leader-elect=false", "--listen="+health)}
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		return err
	}
	err := c.ready(ctx)
	if err == nil {
		err = do(c)
	}
	_ = c.cmd.Process.Signal(os.Interrupt)
	if end := c.cmd.Wait(); err == nil && end != nil {
		err = fmt.Errorf("kubepki controller: %w", end)
	}
	if err != nil {
		err = fmt.Errorf("%w; its last words: %s", err, last(c.stderr.Bytes()))
	}
	return err
}

func last(b []byte) []byte { return b[max(0, len(b)-2000):] }

func (c *controller) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("kubepki controller is not ready")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// memory is the resident set, in MiB.
func (c *controller) memory() (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

func (b *bench) create(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	_, err := b.nodes.CertificatesV1().CertificateSigningRequests().Create(ctx, r, metav1.CreateOptions{})
	return err
}
