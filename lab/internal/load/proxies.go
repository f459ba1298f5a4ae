package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/proxywatch"
)

const (
	// proxyLabel says, on a node, by which credential its kube-proxy is known; the
	// DaemonSet of each has it at the end of its name (package objects).
	proxyLabel  = "lab.kubepki.dev/kube-proxy"
	proxyHealth = "10256"
)

// proxyStreams look on each node whether its kube-proxy hears of changes: a new
// service has to be reached from the node. Where a stand-in runs, which programs
// nothing, its health tells whether its watches live.
func (s *site) proxyStreams(ctx context.Context, c *clients) ([]*Stream, error) {
	var all []*Stream
	for _, n := range s.nodes {
		way := n.labels[proxyLabel]
		if way == "" {
			continue
		}
		set, err := c.apps.DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy-"+way, metav1.GetOptions{})
		if found, err := exists(err); err != nil {
			return nil, err
		} else if !found {
			continue
		}
		p := &proxied{site: s, node: n, user: s.administrator()}
		do, every := p.reach, 5*time.Second
		if strings.Contains(set.Spec.Template.Spec.Containers[0].Image, "kube-proxy-client") {
			do, every = p.health, time.Second
		}
		all = append(all, &Stream{Name: "kube-proxy/" + n.name, Link: 7, Every: every, Do: do, Close: p.user.close})
	}
	if len(all) == 0 {
		s.absent("kube-proxy", 7, "no node has a kube-proxy")
	}
	return all, nil
}

// proxied is the kube-proxy of one node.
type proxied struct {
	site *site
	node kubelet
	user *user
}

// reach makes a new service and dials it from the node until it answers.
func (p *proxied) reach(ctx context.Context) error {
	return p.user.call(func(c *clients) error {
		api, err := kubernetes.NewForConfigAndClient(c.config, c.http)
		if err != nil {
			return err
		}
		from := map[string]proxywatch.Dial{p.node.name: lab.DialFrom(p.site.folder.Network(p.node.name))}
		_, err = proxywatch.Check(ctx, api, namespace, from)
		return err
	})
}

// health asks the stand-in for kube-proxy.
func (p *proxied) health(ctx context.Context) error {
	url := "http://" + net.JoinHostPort(p.node.address.String(), proxyHealth) + "/healthz"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, errorLimit)) // the status says enough
		return fmt.Errorf("%s answers %s: %s", url, answer.Status, why)
	}
	return nil
}
