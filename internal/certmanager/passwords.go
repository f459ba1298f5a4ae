package certmanager

import (
	"sync"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"github.com/kubepki/kubepki/internal/workload"
)

// passwords know which keystores are of another password than the one that stands in the
// Secret which their Certificate names. Those Secrets are watched by name, and as metadata:
// no password is sent for it, and none is kept. It is safe for concurrent use.
//
// A password has changed where its Secret was written after the keystore was: versions of
// Secrets tell that, also after a restart. What this process has written it remembers by the
// password's version, so that no other change of the keystore's Secret hides it.
type passwords struct {
	named *namedWatches[types.NamespacedName]

	mu   sync.Mutex
	of   map[types.NamespacedName]uint64         // versions of password Secrets, as they were seen
	used map[types.NamespacedName]passwordsInUse // by Certificate
}

// passwordsInUse are the versions of the password Secrets of one Certificate, by name.
type passwordsInUse map[string]uint64

// mostPasswords are so many Secrets as are watched at once. Whoever makes Certificates of as
// many passwords as he likes shall not open as many watches; the password of one that is
// not watched counts from the next issuance on, as in cert-manager.
const mostPasswords = 1000

func newPasswords(client metadata.Interface, changed func(types.NamespacedName)) *passwords {
	p := &passwords{of: map[types.NamespacedName]uint64{}, used: map[types.NamespacedName]passwordsInUse{}}
	p.named = newNamedWatches(client, changed)
	p.named.seen, p.named.most = p.seen, mostPasswords
	return p
}

// seen takes note of the version of a password's Secret. One that is gone leaves the
// keystores as they are.
func (p *passwords) seen(w watched, v uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v > 0 {
		p.of[w.NamespacedName] = v
	} else {
		delete(p.of, w.NamespacedName)
	}
}

// passwordSecrets are the names of the Secrets with the passwords of a Certificate.
func passwordSecrets(c *cmapi.Certificate) []string {
	if c == nil || c.Spec.Keystores == nil {
		return nil
	}
	var names []string
	jks, pkcs12 := workload.PasswordRefs(&c.Spec)
	for _, ref := range []*cmmeta.SecretKeySelector{jks, pkcs12} {
		if ref != nil {
			names = append(names, ref.Name)
		}
	}
	return names
}

// follow watches the passwords that a Certificate names now; nil: it is gone, or another's.
// It tells whether it does.
func (p *passwords) follow(key types.NamespacedName, c *cmapi.Certificate) bool {
	var list []watched
	for _, name := range passwordSecrets(c) {
		list = append(list, watched{secretResource, types.NamespacedName{Namespace: key.Namespace, Name: name}})
	}
	if list == nil {
		p.mu.Lock()
		delete(p.used, key)
		p.mu.Unlock()
	}
	return p.named.set(key, list)
}

// changed tells whether a password is not the one with which the keystores of a Certificate
// were made, whose Secret is of a version. What it returns beside that is for wrote.
func (p *passwords) changed(key types.NamespacedName, c *cmapi.Certificate, secret uint64) (bool, passwordsInUse) {
	names := passwordSecrets(c)
	if len(names) == 0 {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, now := false, passwordsInUse{}
	for _, name := range names {
		v, known := p.of[types.NamespacedName{Namespace: key.Namespace, Name: name}]
		if !known {
			continue // the watch will tell
		}
		now[name] = v
		was, written := p.used[key][name]
		if !written {
			was = secret
		}
		changed = changed || v > was
	}
	if !changed {
		p.used[key] = now
	}
	return changed, now
}

// wrote takes note of the passwords with which the keystores of a Certificate were made:
// those that changed has told of, or later ones.
func (p *passwords) wrote(key types.NamespacedName, with passwordsInUse) {
	if with == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[key] = with
}
