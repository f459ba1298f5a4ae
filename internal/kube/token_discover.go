package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

// clusterInfoPath is where the API server shows cluster-info to everybody.
const clusterInfoPath = "/api/v1/namespaces/kube-public/configmaps/cluster-info"

// maxClusterInfo bounds what is read of a server that nobody vouches for yet.
// etcd stores no object above 1.5 MiB; JSON may escape it.
const maxClusterInfo = 4 << 20

// fetchTimeout is what one attempt may take, as in kubeadm's ToClientSet.
const fetchTimeout = 10 * time.Second

// FetchClusterInfo is the bootstrap.Fetch of a real API server. It sends no
// credential, follows no redirect, and reads no more than 4 MiB.
func FetchClusterInfo(ctx context.Context, endpoint string, anchors []*x509.Certificate) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if same, err := bootstrap.Endpoint("https://" + endpoint); err != nil || same != endpoint {
		return nil, fmt.Errorf("%q is not HOST:PORT", endpoint)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+endpoint+clusterInfoPath, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	client := discoveryClient(anchors)
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, statusError(response)
	}
	var m corev1.ConfigMap
	if err := json.NewDecoder(io.LimitReader(response.Body, maxClusterInfo)).Decode(&m); err != nil {
		return nil, fmt.Errorf("the answer is no ConfigMap: %w", err)
	}
	return m.Data, nil
}

func discoveryClient(anchors []*x509.Certificate) *http.Client {
	// What comes from an unverified server is proved by its signature.
	config := &tls.Config{InsecureSkipVerify: len(anchors) == 0} //nolint:gosec // discovery begins so, see bootstrap.Discover
	if len(anchors) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, a := range anchors {
			config.RootCAs.AddCert(a)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: 1 << 16,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func statusError(response *http.Response) error {
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the API server shows it to nobody anonymous (HTTP %d)", response.StatusCode)
	case http.StatusNotFound:
		return errors.New("there is none (HTTP 404)")
	}
	return fmt.Errorf("the API server answers HTTP %d", response.StatusCode)
}

// Discover is bootstrap.Discover on a real API server.
func Discover(ctx context.Context, d bootstrap.Discovery) (*bootstrap.ClusterInfo, error) {
	return bootstrap.Discover(ctx, FetchClusterInfo, d)
}
