package mtlsgrpc

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/kubepki/kubepki/mtls"
)

const (
	// remembered is how many connections are known at most.
	remembered = 4096
	// holds is how long what was found of a connection holds at most.
	holds = time.Second
)

// verdicts remember what was found of a connection: one can carry any number of
// calls, and a chain that is made to costs a hundred signatures at each. The zero
// value is ready.
type verdicts struct {
	once  sync.Once
	known *lru.Cache[connectionKey, *verdict]
}

// connectionKey tells connections apart: where the certificates of a handshake
// stand. Those of two connections are never in one place.
type connectionKey = **x509.Certificate

type verdict struct {
	mu     sync.Mutex // held while it is found, so that calls do not find the same at once
	of     *mtls.Snapshot
	at     time.Time
	client mtls.Peer
	err    error
}

// verify is [mtls.VerifyClient], by a snapshot, as of a second ago at most.
func (v *verdicts) verify(now *mtls.Snapshot, state *tls.ConnectionState) (mtls.Peer, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return mtls.Peer{}, mtls.ErrNoClient
	}
	one := v.of(&state.PeerCertificates[0])
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.of != now || time.Since(one.at) >= holds {
		one.client, one.err = mtls.VerifyClient(now, state)
		one.of, one.at = now, time.Now()
	}
	return one.client, one.err
}

func (v *verdicts) of(key connectionKey) *verdict {
	v.once.Do(func() {
		v.known, _ = lru.New[connectionKey, *verdict](remembered) // it fails for sizes below one alone
	})
	if one, ok := v.known.Get(key); ok {
		return one
	}
	fresh := &verdict{}
	if before, known, _ := v.known.PeekOrAdd(key, fresh); known {
		return before
	}
	return fresh
}
