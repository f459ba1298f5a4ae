package load

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/lab"
)

// metricsStreams scrape the controller managers and schedulers, which serve on
// loopback of their nodes, as a scraper on the node would: with a certificate,
// and without verifying theirs, which they sign themselves.
func (s *site) metricsStreams(context.Context, *clients) ([]*Stream, error) {
	if s.loopback {
		s.absent("metrics", 19, "on loopback there is no node to dial from")
		return nil, nil
	}
	var all []*Stream
	for _, n := range s.spec.ControlPlanes {
		for _, served := range []struct{ component, port string }{{"kube-controller-manager", "10257"}, {"kube-scheduler", "10259"}} {
			scraper := s.visitor()
			scraper.as = func(config *rest.Config) {
				config.Host = "https://" + net.JoinHostPort("127.0.0.1", served.port)
				config.Dial = lab.DialFrom(s.folder.Network(n.Name))
				config.Insecure, config.CAData = true, nil
			}
			all = append(all, &Stream{Name: "metrics/" + n.Name + "/" + served.component, Link: 19, Every: 2 * time.Second, Do: scraper.scrape})
		}
	}
	return all, nil
}

// scrape reads metrics.
func (u *user) scrape(ctx context.Context) error {
	return u.call(func(c *clients) error {
		body, err := c.core.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
		if err == nil && !strings.Contains(string(body), "rest_client_requests_total") {
			return errors.New("these are not the metrics of a client of the API")
		}
		return err
	})
}
