package restart

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/trust"
)

const (
	healthCall = 5 * time.Second
	maxHealth  = 64 << 10 // bytes of an answer
)

// healthOf is the URL that tells how a target is: the kubelet's own of a static pod,
// else the component's by default; empty where it has none.
func (m *Machine) healthOf(g *trust.Graph, t *Target) string {
	if t.Kind == StaticPod {
		if content, err := layout.ReadFile(m.Root, t.Source.Path); err == nil {
			if pod, err := layout.ParseStaticPod(content.Data); err == nil && pod.Health != "" {
				return pod.Health
			}
		}
	}
	for i := range g.Nodes {
		for j := range g.Nodes[i].Components {
			if c := &g.Nodes[i].Components[j]; c.ID() == t.ID() {
				return defaultHealth(c)
			}
		}
	}
	return ""
}

// defaultHealth is where a component tells how it is, by its flags (k/k
// pkg/cluster/ports/ports.go, pkg/kubelet/apis/config/v1beta1/defaults.go; etcd
// server/etcdserver/api/etcdhttp/health.go).
func defaultHealth(c *trust.Component) string {
	switch c.Name {
	case catalog.APIServer:
		return healthURL("https", c, "bind-address", "secure-port", catalog.DefaultBindPort, "/readyz")
	case catalog.ControllerManager:
		return healthURL("https", c, "bind-address", "secure-port", catalog.ControllerManagerPort, "/healthz")
	case catalog.Scheduler:
		return healthURL("https", c, "bind-address", "secure-port", catalog.SchedulerPort, "/healthz")
	case catalog.Kubelet:
		return healthURL("http", c, "healthz-bind-address", "healthz-port", 10248, "/healthz")
	case catalog.Etcd:
		v, _ := c.Flag("listen-metrics-urls")
		first, _, _ := strings.Cut(v, ",")
		if u, err := url.Parse(first); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
			return u.Scheme + "://" + u.Host + "/health"
		}
	}
	return ""
}

func healthURL(scheme string, c *trust.Component, hostFlag, portFlag string, port int, path string) string {
	host, _ := c.Flag(hostFlag)
	if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
		host = "127.0.0.1"
	}
	at, _ := c.Flag(portFlag)
	at = cmp.Or(at, strconv.Itoa(port))
	if at == "0" {
		return ""
	}
	return scheme + "://" + net.JoinHostPort(host, at) + path
}

// Health tells why a target is not healthy by its own word, nil where it is or where
// it is not asked. The server is not verified, as the kubelet does not: nothing is
// sent to it, and the live proof is another matter. One that answers and does not
// let strangers ask is up.
func (m *Machine) Health(ctx context.Context, g *trust.Graph, t *Target) error {
	at := m.healthOf(g, t)
	if at == "" {
		return nil
	}
	status, text, err := ask(ctx, at, callOnce(&tls.Config{InsecureSkipVerify: true}, nil)) //nolint:gosec // see above
	switch {
	case err != nil:
		return fmt.Errorf("it does not answer at %s: %w", at, err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return nil
	case status < 200 || status >= 400: // as the kubelet has it (k/k pkg/probe/http/http.go)
		return fmt.Errorf("%s says %d: %s", at, status, firstFault(text))
	}
	return nil
}

// callOnce is a client that makes a connection for each call, without a proxy, for
// what it calls is near, and follows nobody elsewhere.
func callOnce(config *tls.Config, dial probe.Dial) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, DialContext: dial, DisableKeepAlives: true}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask makes one request.
func ask(ctx context.Context, at string, client *http.Client) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthCall)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, "", err
	}
	return answer(client, request)
}

func answer(client *http.Client, request *http.Request) (status int, text string, err error) {
	request.Header.Set("User-Agent", "kubepki")
	response, err := client.Do(request)
	if err != nil {
		var said *url.Error
		if errors.As(err, &said) {
			err = said.Err // without the address, which is named already
		}
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	return response.StatusCode, string(body), err
}

// firstFault is the line of an answer that tells most: the first check that failed,
// or else the first line.
func firstFault(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "[-]") {
			return l
		}
	}
	return lines[0][:min(len(lines[0]), 200)]
}
