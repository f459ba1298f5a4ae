package saserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/token"
)

// Publisher serves the documents of an issuer, made anew when the keys change:
// at the paths of their URLs, and where every API server has them
// ([token.DiscoveryPath], [token.JWKSPath]). It may be used by several
// goroutines.
type Publisher struct {
	keys        token.KeySource
	publication Publication
	last        atomic.Pointer[published]
}

// published is what a set of keys was made into.
type published struct {
	of     *token.KeySet
	byPath map[string]page
}

type page struct {
	Document
	tag string // ETag
}

// NewPublisher returns a publisher; the error tells that the keys cannot be had
// or the URLs not be served. No document may be at the path of another handler,
// [ReviewPath].
func NewPublisher(ctx context.Context, keys token.KeySource, p Publication) (*Publisher, error) {
	s := &Publisher{keys: keys, publication: p}
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	if _, taken := now.byPath[ReviewPath]; taken {
		return nil, fmt.Errorf("the path %s is that of token reviews", ReviewPath)
	}
	return s, nil
}

func (s *Publisher) now(ctx context.Context) (*published, error) {
	set, err := s.keys.Keys(ctx, "")
	if err != nil {
		return nil, err
	}
	if last := s.last.Load(); last != nil && last.of == set {
		return last, nil
	}
	keys, discovery, err := s.publication.Documents(set)
	if err != nil {
		return nil, err
	}
	now := &published{of: set, byPath: map[string]page{
		token.JWKSPath: newPage(keys), token.DiscoveryPath: newPage(discovery),
	}}
	// What the URLs say goes before.
	now.byPath[keys.Path], now.byPath[discovery.Path] = newPage(keys), newPage(discovery)
	s.last.Store(now)
	return now, nil
}

func newPage(d Document) page {
	sum := sha256.Sum256(d.Data)
	return page{d, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// ServeHTTP answers GET and HEAD, and requests that name what they have by
// ETag.
func (s *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now, err := s.now(r.Context())
	if err != nil {
		http.Error(w, "the keys cannot be had", http.StatusInternalServerError)
		return
	}
	p, ok := now.byPath[r.URL.Path]
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
	default:
		h := w.Header()
		h.Set("Content-Type", p.MediaType)
		h.Set("Cache-Control", CacheControl)
		h.Set("ETag", p.tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.Data))
	}
}
