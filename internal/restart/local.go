package restart

import (
	"context"
	"errors"
	"time"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Runner makes one that restarts what runs on the machine and proves it. Read reads
// the machine's cluster anew, with its processes; it is called before each restart
// and for each proof.
func (m *Machine) Runner(read func() (Cluster, error)) *Runner {
	var began time.Time // the restart that is under way
	return &Runner{
		Poll: m.Poll,
		Can: func(ctx context.Context, t *Target) error {
			c, err := read()
			if err != nil {
				return err
			}
			return m.Can(ctx, c.Graph, t)
		},
		May: func(ctx context.Context, t *Target) error {
			c, err := read()
			if err != nil {
				return err
			}
			err = MayStop(ctx, c, t, func(said string) { m.say("%s", said) })
			var unknown *UnknownQuorumError
			if m.Force && errors.As(err, &unknown) {
				m.say("%s: %v", t.ID(), err)
				return nil
			}
			return err
		},
		Restart: func(ctx context.Context, t *Target) (Life, string, string, error) {
			c, err := read()
			if err != nil {
				return nil, "", "", err
			}
			began = time.Now()
			s, err := m.Restart(ctx, c.Graph, t)
			if err != nil {
				return nil, "", "", err
			}
			return s, s.By, s.Look, nil
		},
		Proved: func(ctx context.Context, t *Target) error {
			c, err := read()
			if err != nil {
				return err
			}
			if err := m.Health(ctx, c.Graph, t); err != nil {
				return err
			}
			if err := Prove(ctx, c, t); err != nil {
				return err
			}
			if t.Await {
				return m.Told(ctx, c, t, time.Time{}) // it may have begun long before
			}
			return m.Told(ctx, c, t, began)
		},
	}
}

// FactsOf reads the facts of components from the manifests of nodes, whose roots are
// given by their names.
func FactsOf(dirs map[string]string) Facts {
	manifests := map[trust.Place][]byte{}
	manifest := func(c *trust.Component) []byte {
		if data, ok := manifests[c.Source]; ok || c.Source.IsZero() {
			return data
		}
		content, err := layout.ReadFile(dirs[c.Node], c.Source.Path)
		if err != nil {
			return nil // nothing is known, so that it is restarted where any version needs it
		}
		manifests[c.Source] = content.Data
		return content.Data
	}
	return Facts{
		Version:     func(c *trust.Component) string { return layout.ManifestVersion(manifest(c)) },
		MountsAlone: func(c *trust.Component, file string) bool { return layout.MountsAlone(manifest(c), file) },
	}
}
