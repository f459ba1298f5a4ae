package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
)

// writeMount writes the token where clients read it again.
func (o *saTokenOptions) writeMount(ctx context.Context, s streams, source saSource, w *saWant) (made *saMade, err error) {
	var kept []error
	files := func() (m layout.Mount, err error) {
		if old, err := mountedToken(s, o.mount); err == nil {
			if err := refuseOther(old, w.account); err != nil {
				return m, advise(fmt.Errorf("%s: %w: whoever reads it would become another", o.mount, err), "choose another folder, or remove that one first")
			}
		}
		m.Namespace = w.namespace
		if m.CA, err = source.anchors(ctx, w.namespace); err != nil {
			return m, err // first, for a Secret is made in the cluster
		}
		if made, err = o.from.make(ctx, source, w); err == nil {
			m.Token = made.text
		}
		return m, err
	}
	err = whileBusy(ctx, func() (err error) {
		kept, err = layout.WriteMount(o.mount, files)
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		err = advise(err, "choose another folder, or move that away")
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(s.err, "wrote %s: token, ca.crt and namespace\n", o.mount)
	for _, why := range kept {
		fmt.Fprintf(s.err, "kubepki: warning: the new files are in place, and old ones are left, a token perhaps: %s: remove that folder\n", report.Plain(why.Error()))
	}
	return made, nil
}

// mountedToken reads the token of a folder. That it cannot be read is a
// [*layout.ReadError].
func mountedToken(s streams, dir string) (*content.Token, error) {
	file := filepath.Join(dir, layout.MountToken)
	data, err := readInput(s, file)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(data))
	if err := notAToken(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	t, err := content.ReadToken(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// refuseOther refuses the token of another service account.
func refuseOther(t *content.Token, a account) error {
	switch {
	case t.ServiceAccount == nil:
		return fmt.Errorf("its token is of no service account, and not of %s", a)
	case a != account{t.Namespace, t.ServiceAccount.Name}:
		return fmt.Errorf("its token is of %q, and not of %s", account{t.Namespace, t.ServiceAccount.Name}.String(), a)
	}
	return nil
}
