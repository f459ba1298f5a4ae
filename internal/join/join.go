package join

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// Join gives a client its credential. When a valid one is there it is left as
// it is, and only what an interrupted run left to do is done. Otherwise it asks
// for one with the bootstrap credential, proves it, installs it, and removes the
// bootstrap kubeconfig when a call made from the files on the disk has
// succeeded. Interrupted at any moment, another Join completes it, with the same
// request.
//
// The error is an [*AccessError] when the API server cannot be used, and a
// [*RequestError] when the request gave no certificate.
func Join(ctx context.Context, o Options) (*Result, error) {
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
	have, _ := c.present(time.Now())
	if have != nil && !c.unfinished(have) {
		return c.already(have)
	}
	lock, err := c.disk.lock(o.CertDir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	have, why := c.present(time.Now())
	if have != nil {
		if _, err := c.already(have); err != nil {
			return nil, err
		}
		return c.finish(ctx, have.identity(), AlreadyJoined, "")
	}
	if c.disk.exists(o.Kubeconfig) {
		c.say("joining anew: %s", why)
	}
	if err := c.stayWho(); err != nil {
		return nil, err
	}
	return c.join(ctx)
}

// stayWho takes the identity of a credential that has expired where none was
// given: a kubelet may call its node otherwise than the machine is called.
func (c *client) stayWho() error {
	a, err := c.disk.readAccess(c.o.Kubeconfig)
	if err != nil || !c.o.AnyIdentity {
		return nil //nolint:nilerr // nothing tells who it was
	}
	p, err := a.pair()
	if err != nil {
		return nil //nolint:nilerr // the same
	}
	former := identityOf(p.leaf())
	if !strings.HasPrefix(former.CommonName, nodePrefix) {
		return fmt.Errorf("%s is the credential of %s, which is no node: join it with --user", c.disk.host(c.o.Kubeconfig), former)
	}
	if !former.same(c.o.Identity) {
		c.say("joining as %s, as before", former.CommonName)
	}
	c.o.Identity = former
	return nil
}

// credential is what a client has.
type credential struct {
	*access
	*pair
}

func (c *credential) identity() Identity { return identityOf(c.leaf()) }

// present returns the credential that is there and valid, or why there is none,
// as the kubelet sees it (k/k pkg/kubelet/certificate/bootstrap/bootstrap.go,
// isClientConfigStillValid).
func (c *client) present(now time.Time) (*credential, error) {
	a, err := c.disk.readAccess(c.o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	p, err := a.pair()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.disk.host(c.o.Kubeconfig), err)
	}
	for _, certificate := range p.chain {
		if now.After(certificate.NotAfter) {
			return nil, fmt.Errorf("the certificate of %s (%s) expired at %s", c.disk.host(c.o.Kubeconfig), p.leaf().Subject, date(certificate.NotAfter))
		}
	}
	return &credential{a, p}, nil
}

// unfinished tells whether an interrupted run left something to do.
func (c *client) unfinished(have *credential) bool {
	if c.removesBootstrap() && c.disk.exists(c.o.BootstrapKubeconfig) {
		return true
	}
	return c.disk.exists(c.store.pending()) && have.follows(c.store)
}

func (c *client) removesBootstrap() bool {
	return !c.o.KeepBootstrap && c.o.BootstrapKubeconfig != ""
}

// follows tells whether a credential is read through the link of a store.
func (c *credential) follows(s store) bool {
	return c.user.ClientCertificate == s.current() && len(c.user.ClientCertificateData) == 0
}

// already is the result for a client that has a credential. It is an error when
// the credential is not what was asked for.
func (c *client) already(have *credential) (*Result, error) {
	if id := have.identity(); !c.o.AnyIdentity && !id.same(c.o.Identity) {
		return nil, fmt.Errorf("%s is the credential of %s, not of %s: move it away to join as another", c.disk.host(c.o.Kubeconfig), id, c.o.Identity)
	}
	boot, err := c.bootstrap()
	if err == nil && boot != nil && !sameCluster(have.access, boot) {
		return nil, fmt.Errorf("%s is a valid credential for %s, which has another authority than the cluster to join, %s: move it away to join another cluster",
			c.disk.host(c.o.Kubeconfig), have.cluster.Server, boot.cluster.Server)
	}
	return c.result(AlreadyJoined, have), nil
}

func (c *client) result(o Outcome, have *credential) *Result {
	return &Result{Outcome: o, Identity: have.identity(), Server: have.cluster.Server, Leaf: have.leaf(), Due: Due(have.leaf())}
}

// bootstrap is what to join with; nil when there is nothing.
func (c *client) bootstrap() (*access, error) {
	if c.o.Bootstrap != nil {
		a, err := c.disk.access("/", c.o.Bootstrap)
		if err != nil {
			return nil, err
		}
		a.file = ""
		return a, nil
	}
	a, err := c.disk.readAccess(c.o.BootstrapKubeconfig)
	if missing(err) && !c.disk.exists(c.o.BootstrapKubeconfig) {
		return nil, nil //nolint:nilnil // nothing is a possible answer
	}
	return a, err
}

// join asks for a credential and puts it in place.
func (c *client) join(ctx context.Context) (*Result, error) {
	boot, err := c.bootstrap()
	switch {
	case err != nil:
		return nil, err
	case boot == nil:
		return nil, &NothingToJoinWithError{Path: c.disk.host(c.o.BootstrapKubeconfig)}
	}
	with := "the token of " + c.disk.host(boot.file)
	if boot.file == "" {
		with = "the token"
	}
	who, err := c.whoAmI(ctx, boot.config, with)
	if err != nil {
		return nil, err
	}
	request := ""
	p := c.installed(ctx, boot)
	if p == nil {
		c.say("%s knows us as %s", boot.cluster.Server, who)
		if p, request, err = c.obtain(ctx, boot.config, c.o.Identity, nil); err != nil {
			return nil, err
		}
		if err := c.proved(ctx, boot, p, c.o.Identity); err != nil {
			return nil, err
		}
		if err := c.store.install(p, time.Now()); err != nil {
			return nil, err
		}
	}
	if err := c.writeAuthority(boot); err != nil {
		return nil, err
	}
	data, err := kubeconfigFor(boot, c.store.current())
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", c.o.Kubeconfig, err)
	}
	if err := c.disk.put(c.o.Kubeconfig, data, 0o600); err != nil {
		return nil, err
	}
	return c.finish(ctx, c.o.Identity, Joined, request)
}

// installed returns the pair that an interrupted run put in place, when it is
// what would be asked for and the server takes it.
func (c *client) installed(ctx context.Context, boot *access) *pair {
	p, err := c.store.load()
	if err != nil || p.check(c.o.Identity, time.Now()) != nil {
		return nil
	}
	config, err := boot.as(p)
	if err != nil {
		return nil
	}
	if err := c.prove(ctx, config, c.o.Identity); err != nil {
		c.say("%s is not used: %s", c.disk.host(c.store.current()), err)
		return nil
	}
	c.say("%s is there already, and valid", c.disk.host(c.store.current()))
	return p
}

func (c *client) proved(ctx context.Context, a *access, p *pair, id Identity) error {
	config, err := a.as(p)
	if err != nil {
		return err
	}
	return c.prove(ctx, config, id)
}

// writeAuthority writes what kubelets verify their own clients with, as kubeadm
// join does, unless something is there.
func (c *client) writeAuthority(boot *access) error {
	if c.o.AuthorityFile == "" || len(boot.ca) == 0 || c.disk.exists(c.o.AuthorityFile) {
		return nil
	}
	return c.disk.put(c.o.AuthorityFile, boot.ca, 0o644)
}

// finish makes a call with what is on the disk. When it succeeds, nothing needs
// the bootstrap kubeconfig and the key of the request any more.
func (c *client) finish(ctx context.Context, id Identity, o Outcome, request string) (*Result, error) {
	have, err := c.present(time.Now())
	if err != nil {
		return nil, err
	}
	if err := c.prove(ctx, rest.CopyConfig(have.config), id); err != nil {
		return nil, err
	}
	result := c.result(o, have)
	result.Request = request
	if c.removesBootstrap() && c.disk.exists(c.o.BootstrapKubeconfig) {
		if err := c.disk.remove(c.o.BootstrapKubeconfig); err != nil {
			return nil, err
		}
		result.BootstrapRemoved = true
	}
	return result, c.store.forgetPending(have.leaf().PublicKey)
}

// NothingToJoinWithError tells that there is neither a credential nor a
// bootstrap kubeconfig.
type NothingToJoinWithError struct {
	Path string // of the bootstrap kubeconfig, as the caller knows it
}

func (e *NothingToJoinWithError) Error() string {
	return e.Path + ": there is no bootstrap kubeconfig to join with"
}

// Hint tells what to do.
func (e *NothingToJoinWithError) Hint() string {
	return "on a control plane run kubepki kubeconfig bootstrap and bring what it writes here, or give --server, --token and --discovery-token-ca-cert-hash"
}

// storeOf is the store that a credential is read from: where its kubeconfig
// names the link of one, that, and otherwise the store of the options.
func (c *client) storeOf(have *credential) store {
	folder, name := path.Split(have.user.ClientCertificate)
	prefix, isLink := strings.CutSuffix(name, "-current.pem")
	if !isLink || prefix == "" || len(have.user.ClientCertificateData) > 0 {
		return c.store
	}
	return store{disk: c.disk, folder: path.Clean(folder), prefix: prefix}
}
