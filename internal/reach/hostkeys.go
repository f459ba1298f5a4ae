package reach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// hostKeys are the host keys that somebody confirmed.
type hostKeys struct {
	db    *knownhosts.HostKeyDB
	files []string
	file  string // into which a new one goes
}

func (s *Settings) hostKeys(configured string) (*hostKeys, error) {
	files := []string{home(".ssh/known_hosts"), home(".ssh/known_hosts2"), "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	switch {
	case s.KnownHosts != "":
		if _, err := os.Stat(s.KnownHosts); err != nil {
			return nil, &Error{err, "name a file of host keys with --ssh-known-hosts"}
		}
		files = []string{s.KnownHosts}
	case configured != "":
		files = nil
		for _, f := range strings.Fields(configured) {
			files = append(files, expand(f))
		}
	}
	k := &hostKeys{}
	if len(files) > 0 {
		k.file = files[0]
	}
	for _, f := range files {
		if info, err := os.Stat(f); f != "" && err == nil && info.Mode().IsRegular() {
			k.files = append(k.files, f)
		}
	}
	var err error
	if k.db, err = knownhosts.NewDB(k.files...); err != nil {
		return nil, &Error{err, "mend that line, or take it out: ssh would pass over it, and a host key must not depend on who reads the file"}
	}
	return k, nil
}

// algorithms are those in which the host's key is known: a host that shows another
// kind of key first would look like one whose key was changed. No SHA-1 is among
// them.
func (k *hostKeys) algorithms(checked string) []string {
	return slices.DeleteFunc(k.db.HostKeyAlgorithms(checked), func(a string) bool {
		return a == ssh.KeyAlgoRSA || a == ssh.CertAlgoRSAv01 || strings.Contains(a, "dss")
	})
}

// callback judges the key that a host shows under the name that known_hosts has.
func (k *hostKeys) callback(name, checked string) ssh.HostKeyCallback {
	return func(_ string, remote net.Addr, key ssh.PublicKey) error {
		err := k.db.HostKeyCallback()(checked, remote, key)
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostKeyChanged(err):
			return k.changed(name, checked, key)
		case knownhosts.IsHostUnknown(err):
			return k.unknown(name, checked, key)
		}
		return &Error{fmt.Errorf("%s: %s: the host key is refused: %w", name, checked, err), "see what " + k.where() + " says of it"}
	}
}

func (k *hostKeys) where() string {
	if len(k.files) == 0 {
		return "any known_hosts file, and none is there"
	}
	return strings.Join(k.files, ", ")
}

// ErrUnknownHost and ErrChangedHost are why a host's key is refused.
var (
	ErrUnknownHost = errors.New("its host key is not known")
	ErrChangedHost = errors.New("ITS HOST KEY IS NOT THE KNOWN ONE: it was installed anew, or somebody else answers in its place")
)

func (k *hostKeys) unknown(name, checked string, key ssh.PublicKey) error {
	host, port, _ := net.SplitHostPort(checked)
	return &Error{
		Err: fmt.Errorf("%s: %s: %w to %s; it shows %s %s", name, checked, ErrUnknownHost, k.where(), key.Type(), ssh.FingerprintSHA256(key)),
		Help: fmt.Sprintf("compare that with what ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub says on the machine's own console, and keep it: ssh-keyscan -t %s -p %s %s >> %s",
			keyKind(key), keyKind(key), port, host, first(k.file, "~/.ssh/known_hosts")),
	}
}

func (k *hostKeys) changed(name, checked string, key ssh.PublicKey) error {
	return &Error{
		Err:  fmt.Errorf("%s: %s: %w; known is what %s says, it shows %s %s", name, checked, ErrChangedHost, k.lines(checked), key.Type(), ssh.FingerprintSHA256(key)),
		Help: fmt.Sprintf("ask who installed the machine anew, compare the fingerprint on its own console, and only then forget the old key: ssh-keygen -R %s -f %s", knownhosts.Normalize(checked), first(k.file, "~/.ssh/known_hosts")),
	}
}

// lines names the known keys of a host.
func (k *hostKeys) lines(checked string) string {
	var all []string
	for _, key := range k.db.HostKeys(checked) {
		all = append(all, key.Type()+" "+ssh.FingerprintSHA256(key.PublicKey))
	}
	return k.where() + " (" + strings.Join(all, ", ") + ")"
}

// keyKind is how ssh-keyscan calls a key's type.
func keyKind(key ssh.PublicKey) string {
	switch t := key.Type(); {
	case strings.Contains(t, "ed25519"):
		return "ed25519"
	case strings.Contains(t, "ecdsa"):
		return "ecdsa"
	default:
		return "rsa"
	}
}
