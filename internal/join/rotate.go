package join

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math"
	"time"
)

// Due is when a certificate is to be replaced: after seven to nine tenths of
// its life, as client-go does (util/certificate/certificate_manager.go,
// jitteryDuration), so that nodes which joined together do not renew together.
// Where within these two tenths, a digest of the certificate says and not
// chance: whoever asks again, be it each hour from a timer, gets the same answer.
func Due(leaf *x509.Certificate) time.Time {
	digest := sha256.Sum256(leaf.Raw)
	fraction := 0.7 + 0.2*float64(binary.BigEndian.Uint64(digest[:]))/math.MaxUint64
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(time.Duration(fraction * float64(life)))
}

// Rotate replaces a valid credential by one with a new key when it is [Due], or
// at once with force: it asks for it with the credential that is there, proves
// it by a call, and moves the link to it. The dated file before it stays. A
// kubeconfig that holds the certificate itself, as kubeadm makes it for control
// planes, names the link afterwards. Interrupted at any moment, the credential
// that is there goes on working, and another Rotate goes on with the same
// request.
//
// The error is an [*ExpiredError] when the credential cannot be used any more,
// and otherwise as that of [Join].
func Rotate(ctx context.Context, o Options, force bool) (*Result, error) {
	c, err := open(o)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	have, err := c.present(time.Now())
	if err != nil {
		return nil, c.expired(err)
	}
	if !force && time.Now().Before(Due(have.leaf())) {
		return c.result(NotDue, have), nil
	}
	c.store = c.storeOf(have)
	lock, err := c.disk.lock(c.store.folder)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	// Whoever held the lock may have rotated.
	before := have.leaf()
	if have, err = c.present(time.Now()); err != nil {
		return nil, c.expired(err)
	}
	if !have.leaf().Equal(before) {
		return c.result(Rotated, have), nil
	}
	return c.rotate(ctx, have)
}

func (c *client) expired(why error) error {
	return &ExpiredError{
		Why: why.Error(), Bootstrap: c.disk.host(c.o.BootstrapKubeconfig),
		Waiting: c.disk.exists(c.o.BootstrapKubeconfig),
	}
}

func (c *client) rotate(ctx context.Context, have *credential) (*Result, error) {
	id := have.identity()
	// What the last run left when its certificate was in place.
	if err := c.store.forgetPending(have.leaf().PublicKey); err != nil {
		return nil, err
	}
	if _, err := c.whoAmI(ctx, have.config, "the certificate of "+c.disk.host(c.o.Kubeconfig)); err != nil {
		return nil, err
	}
	p, request, err := c.obtain(ctx, have.config, id, have.leaf().PublicKey)
	if err != nil {
		return nil, err
	}
	if err := c.proved(ctx, have.access, p, id); err != nil {
		return nil, err
	}
	if err := c.store.install(p, time.Now()); err != nil {
		return nil, err
	}
	if !have.follows(c.store) {
		data, err := pointedAt(have.access, c.store.current())
		if err != nil {
			return nil, err
		}
		if err := c.disk.put(c.o.Kubeconfig, data, 0o600); err != nil {
			return nil, err
		}
	}
	if have, err = c.present(time.Now()); err != nil {
		return nil, err
	}
	result := c.result(Rotated, have)
	result.Request = request
	return result, c.store.forgetPending(have.leaf().PublicKey)
}
