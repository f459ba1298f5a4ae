//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
)

// manyNodes is how many real kubelets join.
const manyNodes = 20

// TestManyNodesJoin lets real kubelets join with kubepki controller, which runs
// as its manifests say, and with the controllers of kube-controller-manager off.
func TestManyNodesJoin(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err)
	}
	// A certificate for two minutes is renewed before eighty seconds: it began five
	// minutes ago, so that seven to nine tenths of its life are soon over.
	l := startLab(t, cluster.Wanted{Workers: manyNodes, WithoutPods: true, Signer: cluster.KubepkiSigner, SigningDuration: 2 * time.Minute})
	client, config := l.administrator(t)
	t.Run("kube-apiserver verifies the kubelets' serving certificates", func(t *testing.T) { testVerified(t, config) })
	t.Run("kubelets renew both of their certificates", func(t *testing.T) { l.testRenewals(t) })
	t.Run("kubepki has decided on everything, and issued it", func(t *testing.T) { testDecided(t, client) })
}

// administrator returns a client that is dialled as from beside the nodes.
func (l *supervised) administrator(t *testing.T) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	spec, err := l.spec.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.folder.SuperAdminConf(spec))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, config
}

// testVerified calls each kubelet through kube-apiserver, which dials it with
// --kubelet-certificate-authority.
func testVerified(t *testing.T, config *rest.Config) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range manyNodes {
		url := fmt.Sprintf("%s/api/v1/nodes/w%d/proxy/healthz", config.Host, i+1)
		eventually(t, url, func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		})
	}
}

// testRenewals waits until half of the kubelets have renewed each of their
// certificates: a kubelet keeps every one in a file of its own.
func (l *supervised) testRenewals(t *testing.T) {
	for _, kind := range []string{"client", "server"} {
		eventually(t, "the kubelets have renewed their "+kind+" certificates", func(context.Context) error {
			renewed := 0
			for i := range manyNodes {
				pattern := filepath.Join(l.folder.Root(fmt.Sprintf("w%d", i+1)), kubelet.CertificatesDir, "kubelet-"+kind+"-2*.pem")
				files, err := filepath.Glob(pattern)
				if err != nil {
					return err
				}
				if len(files) > 1 {
					renewed++
				}
			}
			if renewed < manyNodes/2 {
				return fmt.Errorf("%d of %d have", renewed, manyNodes)
			}
			return nil
		})
	}
}

// testDecided looks at what has become of the requests. Those that have just
// been made may wait.
func testDecided(t *testing.T, client kubernetes.Interface) {
	eventually(t, "every request is approved by kubepki, and issued", func(ctx context.Context) error {
		list, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		// Each node asks for two certificates, and half of them for two more.
		if len(list.Items) < 3*manyNodes {
			return fmt.Errorf("there are %d requests", len(list.Items))
		}
		for _, r := range list.Items {
			for _, c := range r.Status.Conditions {
				if c.Type != certificatesv1.CertificateApproved || c.Message != "The request satisfies the policy of kubepki." {
					t.Fatalf("%s of %s: %s %s: %s", r.Name, r.Spec.Username, c.Type, c.Reason, c.Message)
				}
			}
			if len(r.Status.Conditions) != 1 || len(r.Status.Certificate) == 0 {
				return fmt.Errorf("%s of %s waits", r.Name, r.Spec.Username)
			}
		}
		return nil
	})
}
