package controller

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
)

const (
	// alikeFor is how long after a signature a request that is alike gets the
	// same certificate, at least; at most twice as long.
	alikeFor = time.Minute
	// maxAlike bounds how many certificates are kept for that: twice as many.
	maxAlike = 1024
)

// alike keeps what was signed a short while ago: of requests that are alike to
// the last byte, as a client makes that asks again and again, one is signed, and
// all get its certificate. It is safe for concurrent use.
type alike struct {
	mu         sync.Mutex
	young, old map[[32]byte]signed
	turned     time.Time
}

type signed struct {
	signature
	authority []byte // the certificate, DER
}

// likeness is the same for requests that would get certificates which differ in
// nothing but their serial number and their time.
func likeness(r csr.Request) (sum [32]byte) {
	h := sha256.New()
	add := func(field []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
		_, _ = h.Write(field)
	}
	add([]byte(r.SignerName))
	add([]byte(r.Username))
	add(r.PEM)
	var life [5]byte
	if r.ExpirationSeconds != nil {
		life[0] = 1
		binary.BigEndian.PutUint32(life[1:], uint32(*r.ExpirationSeconds))
	}
	add(life[:])
	for _, u := range r.Usages {
		add([]byte(u))
	}
	h.Sum(sum[:0])
	return sum
}

// get returns what the authority has signed for a request that is alike.
func (a *alike) get(sum [32]byte, authority []byte, now time.Time) (signature, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	s, ok := a.young[sum]
	if !ok {
		s, ok = a.old[sum]
	}
	return s.signature, ok && bytes.Equal(s.authority, authority)
}

func (a *alike) put(sum [32]byte, authority []byte, s signature, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	a.young[sum] = signed{s, authority}
}

// turn forgets what is old.
func (a *alike) turn(now time.Time) {
	switch age := now.Sub(a.turned); {
	case a.young == nil || age >= 2*alikeFor:
		a.young, a.old, a.turned = map[[32]byte]signed{}, nil, now
	case age >= alikeFor || len(a.young) >= maxAlike:
		a.young, a.old, a.turned = map[[32]byte]signed{}, a.young, now
	}
}
