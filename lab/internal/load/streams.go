package load

import (
	"context"
	"time"
)

// streams lists the streams of the lab, and notes those that it has no link for.
func (s *site) streams(ctx context.Context) ([]*Stream, error) {
	var all []*Stream
	err := s.admin.call(func(c *clients) error {
		if err := s.findNodes(ctx, c); err != nil {
			return err
		}
		for _, find := range []func(context.Context, *clients) ([]*Stream, error){
			s.apiStreams, s.connectionStreams, s.managerStreams, s.kubeletStreams, s.tokenStreams, s.joinStreams,
			s.aggregatedStreams, s.webhookStreams, s.podStreams, s.proxyStreams, s.etcdStreams, s.metricsStreams,
		} {
			found, err := find(ctx, c)
			if err != nil {
				return err
			}
			all = append(all, found...)
		}
		return nil
	})
	return all, err
}

// apiStreams are what administrators and programs do all day.
func (s *site) apiStreams(context.Context, *clients) ([]*Stream, error) {
	reads, writes := &reads{user: s.administrator()}, &writes{user: s.administrator(), site: s}
	w := &watched{user: s.administrator(), site: s}
	return []*Stream{
		{Name: "reads", Link: 9, Every: 200 * time.Millisecond, Do: reads.do, Close: reads.user.close},
		{Name: "writes", Link: 9, Every: 500 * time.Millisecond, Do: writes.do, Close: writes.user.close},
		{Name: "watch", Link: 9, Every: 500 * time.Millisecond, Do: w.do, Close: w.close},
	}, nil
}
