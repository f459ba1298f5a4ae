package provision

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Apply makes the keys on all cores, signs, and writes all files in one
// transaction, or none on an error. The progress function, if not nil, is
// called once for each key made, from several goroutines at a time. When the
// context ends, nothing is written. The plan is over afterwards.
func (p *Planned) Apply(ctx context.Context, progress func()) error {
	if p.tx == nil {
		return errors.New("the plan was made to be looked at, or is over")
	}
	if err := p.prepare(ctx, progress); err != nil {
		return closeWith(p, interrupted(ctx, err))
	}
	files := p.files()
	for i := range files {
		if err := p.write(&files[i]); err != nil {
			return closeWith(p, explain(err))
		}
	}
	if err := ctx.Err(); err != nil {
		return closeWith(p, interrupted(ctx, err))
	}
	tx := p.tx
	p.tx = nil
	return explain(tx.Commit())
}

func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("interrupted, nothing was written: %w", err)
}

func (p *Planned) prepare(ctx context.Context, progress func()) error {
	if err := p.makeKeys(ctx, progress); err != nil {
		return err
	}
	for _, s := range p.slots {
		if s.entry.Kind == catalog.KindAuthority {
			if err := p.signAuthority(p.authorities[s.entry.Name]); err != nil {
				return err
			}
		}
	}
	return each(ctx, p.slots, p.signLeaf)
}

// Keys counts the keys that Apply makes.
func (p *Planned) Keys() int { return len(p.keysToMake()) }

type keyToMake struct {
	pair      *pair
	algorithm issue.Algorithm
}

func (p *Planned) keysToMake() []keyToMake {
	var keys []keyToMake
	seen := map[*pair]bool{}
	add := func(k *pair, a issue.Algorithm) {
		if k.makeKey && !seen[k] {
			seen[k] = true
			keys = append(keys, keyToMake{k, a})
		}
	}
	for _, s := range p.slots {
		switch s.entry.Kind {
		case catalog.KindAuthority:
			add(&p.authorities[s.entry.Name].pair, p.algorithm())
		case catalog.KindSigningKey:
			add(&p.signing.pair, SigningAlgorithm(p.algorithm()))
		default:
			add(&s.pair, p.algorithm())
		}
	}
	return keys
}

func (p *Planned) makeKeys(ctx context.Context, progress func()) error {
	return each(ctx, p.keysToMake(), func(k keyToMake) error {
		key, err := issue.GenerateKey(k.algorithm)
		if err == nil && progress != nil {
			progress()
		}
		k.pair.key = key
		return err
	})
}

// each calls do for all items on all cores, and returns the first error.
func each[T any](ctx context.Context, items []T, do func(T) error) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, min(runtime.GOMAXPROCS(0), len(items)))
	for w := range errs {
		wait.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				if errs[w] = ctx.Err(); errs[w] == nil {
					errs[w] = do(items[i])
				}
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Planned) signAuthority(a *authority) error {
	if !a.sign || a.chain != nil {
		return nil
	}
	t := p.template(a.entry)
	if a.above == nil {
		c, err := issue.SelfSign(t, a.key)
		if err == nil {
			a.chain = append(a.chain, c)
		}
		return err
	}
	zero := 0
	t.PathLength = &zero // it signs leaves only
	c, err := issue.Sign(t, a.key.Public(), a.above.issuer())
	if err == nil {
		a.chain = append(a.chain, c)
	}
	return err
}

func (p *Planned) signLeaf(s *slot) error {
	if !s.pair.sign || s.entry.Kind == catalog.KindAuthority {
		return nil
	}
	a := p.authorities[s.entry.Authorities[0]]
	t := p.template(s.entry)
	t.Serial = s.serial
	c, err := issue.Sign(t, s.pair.key.Public(), a.issuer())
	if err != nil {
		return err
	}
	s.pair.chain = append(s.pair.chain, c)
	if a.above != nil {
		// Who trusts the root alone needs the authority in between.
		s.pair.chain = append(s.pair.chain, a.chain[0])
	}
	return p.proveSigned(s, a)
}

// file is one file to be written.
type file struct {
	path string // below the transaction's root
	mode fs.FileMode
	data func() ([]byte, error)
}

const (
	privateMode fs.FileMode = 0o600
	publicMode  fs.FileMode = 0o644
)

// files lists what Apply writes, in the order of the slots.
func (p *Planned) files() []file {
	var files []file
	for _, s := range p.slots {
		files = append(files, p.slotFiles(s)...)
	}
	return files
}

func (p *Planned) slotFiles(s *slot) []file {
	var files []file
	add := func(suffix string, mode fs.FileMode, data func() ([]byte, error)) {
		files = append(files, file{s.prefix + s.entry.Path + suffix, mode, data})
	}
	switch s.entry.Kind {
	case catalog.KindAuthority:
		a := p.authorities[s.entry.Name]
		if s.have.certificates == nil && !a.awaited {
			add(".crt", publicMode, certificates(&a.pair))
		}
		if s.have.key == nil && !s.entry.NoKey && a.canSign() {
			add(".key", privateMode, func() ([]byte, error) { return encodeKey(a.key) })
		}
	case catalog.KindAnchors:
		if s.action == Made {
			add(".crt", publicMode, func() ([]byte, error) { return p.anchors(s), nil })
		}
	case catalog.KindSigningKey:
		if s.have.key == nil {
			add(".key", privateMode, func() ([]byte, error) { return encodeKey(p.signing.key) })
		}
		if s.have.public == nil {
			add(".pub", privateMode, func() ([]byte, error) { return issue.EncodePublicKey(p.signing.key.Public()) })
		}
	case KindSerial:
		if s.action == Made {
			add("", publicMode, func() ([]byte, error) { return s.data, nil })
		}
	case KindManifest:
		if s.action == Made {
			add("", privateMode, func() ([]byte, error) { return s.data, nil })
		}
	default:
		p.pairFiles(s, add)
	}
	return files
}

func (p *Planned) pairFiles(s *slot, add func(string, fs.FileMode, func() ([]byte, error))) {
	if s.entry.Kind == catalog.KindKubeconfig && !s.incomplete() {
		if s.have.file == nil {
			add("", privateMode, func() ([]byte, error) { return p.encodeKubeconfig(s) })
		}
		return
	}
	if s.pair.sign {
		add(".crt", publicMode, certificates(&s.pair))
	}
	if s.pair.request {
		add(".csr", publicMode, func() ([]byte, error) { return p.encodeRequest(s) })
	}
	if s.pair.makeKey {
		add(".key", privateMode, func() ([]byte, error) { return encodeKey(s.pair.key) })
	}
}

func (p *Planned) write(f *file) error {
	data, err := f.data()
	if err != nil {
		return err
	}
	switch path.Base(path.Dir(f.path)) {
	case "manifests", catalog.AuthoritiesDir, catalog.UsersDir:
		// As kubeadm's manifests folder; the others hold keys of the whole cluster.
		if err := p.tx.Mkdir(path.Dir(f.path), 0o700); err != nil {
			return err
		}
	}
	if dir, ok := strings.CutSuffix(path.Dir(f.path), catalog.KubeletDir+"/pki"); ok {
		// As the kubelet makes it (setupDataDirs in k/k pkg/kubelet/kubelet.go).
		if err := p.tx.Mkdir(dir+catalog.KubeletDir, 0o750); err != nil {
			return err
		}
	}
	return p.tx.Write(f.path, data, f.mode)
}

func certificates(k *pair) func() ([]byte, error) {
	return func() ([]byte, error) { return trust.EncodeCertificates(k.chain...), nil }
}

func encodeKey(key crypto.Signer) ([]byte, error) { return issue.EncodePrivateKey(key) }

func (p *Planned) encodeRequest(s *slot) ([]byte, error) {
	r, err := issue.Request(p.template(s.entry), s.pair.key)
	if err != nil {
		return nil, err
	}
	return issue.EncodeRequest(r), nil
}

func (p *Planned) anchors(s *slot) []byte {
	var data []byte
	for _, name := range s.entry.Authorities {
		data = append(data, trust.EncodeCertificates(p.authorities[name].chain...)...)
	}
	return data
}

// Recovered tells what an interrupted run had left and this one mended.
func (p *Planned) Recovered() layout.Recovery {
	if p.tx == nil {
		return layout.Recovery{}
	}
	return p.tx.Recovered()
}
