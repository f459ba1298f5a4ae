//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// configuration is kubeadm's default but for the address: an authority with an
// RSA key of 2048 bits.
const configuration = `apiVersion: kubepki.dev/v1alpha1
kind: Cluster
encryptionAlgorithm: RSA-2048
controlPlanes:
- {name: cp1, address: 10.77.0.11}
`

// bench is one control plane, and what has been measured on it.
type bench struct {
	options
	temp   string
	folder cluster.Folder
	client *supervisor.Client
	stop   context.CancelFunc
	ended  chan error

	admin *kubernetes.Clientset // to create, look and tidy up
	nodes *kubernetes.Clientset // as the joining nodes: by a bootstrap token
	floor *floor
	rows  []row
}

// begin starts the control plane.
func begin(ctx context.Context, o options, temp string) (*bench, error) {
	b := &bench{options: o, temp: temp, folder: cluster.Folder(filepath.Join(temp, "lab")), ended: make(chan error, 1)}
	wanted := cluster.Wanted{ConfigName: "bench", Config: []byte(configuration), WithoutPods: true, WithoutKubelets: true}
	spec, err := wanted.Cluster()
	if err == nil {
		err = b.folder.Claim(wanted)
	}
	if err == nil {
		err = b.folder.Make()
	}
	if err == nil {
		_, err = b.folder.CreateCredentials(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = cancel
	go func() {
		b.ended <- supervisor.Run(running, supervisor.Options{Folder: b.folder, Programs: b.build, Log: slog.New(slog.DiscardHandler)})
	}()
	if b.client, err = supervisor.NewClient(b.folder); err == nil {
		err = b.awaitReady(ctx)
	}
	if err == nil {
		err = b.connect(ctx, b.folder.SuperAdminConf(spec))
	}
	if err == nil {
		b.floor, err = newFloor(filepath.Join(b.folder.Root("cp1"), "etc/kubernetes/pki"))
	}
	if err != nil {
		return nil, errors.Join(err, b.end())
	}
	return b, nil
}

func (b *bench) end() error {
	b.stop()
	return <-b.ended
}

// patience is for anything that a control plane takes its time for.
const patience = 2 * time.Minute

func (b *bench) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := b.client.Status(ctx)
		if err == nil && status.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the control plane is not ready: %+v, %w", status, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// connect makes the clients. Nothing bounds them but the API server.
func (b *bench) connect(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if b.admin, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	token, err := b.bootstrapToken(ctx)
	if err != nil {
		return err
	}
	joining := rest.AnonymousClientConfig(config)
	joining.QPS, joining.ContentType, joining.BearerToken = -1, config.ContentType, token
	b.nodes, err = kubernetes.NewForConfig(joining)
	return err
}

// bootstrapToken makes a token in the group that kubeadm lets join.
func (b *bench) bootstrapToken(ctx context.Context) (string, error) {
	token, err := bootstraputil.GenerateBootstrapToken()
	if err != nil {
		return "", err
	}
	id, secret, _ := strings.Cut(token, ".")
	_, err = b.admin.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: bootstraputil.BootstrapTokenSecretName(id)},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
			"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
		},
	}, metav1.CreateOptions{})
	return token, err
}

// deleteAll removes all requests.
func (b *bench) deleteAll(ctx context.Context) error {
	return b.admin.CertificatesV1().CertificateSigningRequests().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
}

// manager gives kube-controller-manager flags, in place of those that the last
// call gave, and starts it anew.
func (b *bench) manager(ctx context.Context, flags ...string) error {
	file := filepath.Join(b.folder.Root("cp1"), "etc/kubernetes/manifests/kube-controller-manager.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const program = "    - kube-controller-manager\n"
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "--kube-api-") || strings.Contains(line, "--controllers=") {
			continue
		}
		lines = append(lines, line)
		if line == program {
			for _, f := range flags {
				lines = append(lines, "    - "+f+"\n")
			}
		}
	}
	if len(lines) == 0 || !strings.Contains(string(data), program) {
		return fmt.Errorf("%s: has no line %q", file, program)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	if _, err := b.client.Do(ctx, "restart", []string{"kube-controller-manager"}); err != nil {
		return err
	}
	return b.awaitReady(ctx)
}

const (
	standard    = "--controllers=*,bootstrapsigner,tokencleaner"
	withoutCSRs = standard + ",-certificatesigningrequest-approving-controller,-certificatesigningrequest-signing-controller,-certificatesigningrequest-cleaner-controller"
)
