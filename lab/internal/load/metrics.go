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
	var all []*Stream
	for _, n := range s.spec.ControlPlanes {
		for component, port := range map[string]string{"kube-controller-manager": "10257", "kube-scheduler": "10259"} {
			scraper := s.visitor()
			scraper.as = func(config *rest.Config) {
				config.Host = "https://" + net.JoinHostPort("127.0.0.1", port)
				config.Dial = lab.DialFrom(s.folder.Network(n.Name))
				config.TLSClientConfig.Insecure, config.CAData = true, nil
			}
			all = append(all, &Stream{Name: "metrics/" + n.Name + "/" + component, Link: 19, Every: 2 * time.Second, Do: func(ctx context.Context) error {
				return scraper.call(func(c *clients) error {
					body, err := c.core.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
					if err == nil && !strings.Contains(string(body), "rest_client_requests_total") {
						return errors.New("these are not the metrics of a client of the API")
					}
					return err
				})
			}})
		}
	}
	return all, nil
}
