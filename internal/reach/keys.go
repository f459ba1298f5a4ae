package reach

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// identities are the keys that are shown to machines, each file read once.
type identities struct {
	ask   func(string) ([]byte, error)
	agent agent.ExtendedAgent // nil: none

	mu    sync.Mutex
	files map[string]identity
}

type identity struct {
	signer ssh.Signer // nil: none
	err    error
}

func (s *Settings) identities() *identities {
	i := &identities{ask: s.Ask, files: map[string]identity{}}
	// A socket that its agent left behind is as good as none: ssh says nothing of it either.
	if conn, err := net.Dial("unix", s.Agent); s.Agent != "" && err == nil {
		i.agent = agent.NewClient(conn)
	}
	return i
}

// usual are the files that ssh looks for by itself.
var usual = []string{".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"}

// signers are the keys for a machine, in the order in which they are shown: the one
// that was named, those of the configuration, the agent's, the usual ones. An error is
// of the one that was named.
func (i *identities) signers(named string, s settled) ([]ssh.Signer, error) {
	var all []ssh.Signer
	add := func(more ...ssh.Signer) {
		for _, m := range more {
			if !has(all, m.PublicKey()) {
				all = append(all, m)
			}
		}
	}
	var ofAgent []ssh.Signer
	if i.agent != nil {
		ofAgent, _ = i.agent.Signers() // one that does not answer has no keys for us
	}
	for n, file := range append([]string{named}, s.identities...) {
		if file == "" {
			continue
		}
		signer, err := i.file(file, ofAgent, true)
		if err != nil && (n == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		if signer != nil {
			add(signer)
		}
	}
	if s.only && len(all) > 0 {
		return all, nil
	}
	add(ofAgent...)
	for _, name := range usual {
		if signer, err := i.file(home(name), ofAgent, false); err == nil && signer != nil {
			add(signer)
		}
	}
	if len(all) == 0 {
		return nil, &Error{errors.New("there is no key to show: no ssh-agent at SSH_AUTH_SOCK with one, and no file"), "ssh-add FILE, or --ssh-identity FILE"}
	}
	return all, nil
}

func has(all []ssh.Signer, key ssh.PublicKey) bool {
	for _, s := range all {
		if bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) {
			return true
		}
	}
	return false
}

// file reads a key once, whichever machines ask for it: a passphrase is asked once.
func (i *identities) file(name string, ofAgent []ssh.Signer, named bool) (ssh.Signer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if have, ok := i.files[name]; ok {
		return have.signer, have.err
	}
	signer, err := i.read(name, ofAgent, named)
	if err == nil && signer != nil {
		signer = withCertificate(name, signer)
	}
	i.files[name] = identity{signer, err}
	return signer, err
}

// read reads a key's file. One that is encrypted and that the agent has is the
// agent's.
func (i *identities) read(name string, ofAgent []ssh.Signer, named bool) (ssh.Signer, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, &Error{err, "name a private key's file with --ssh-identity, or give none where an ssh-agent has it"}
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if err == nil {
		return signer, nil
	}
	if !errors.As(err, &locked) {
		return nil, &Error{fmt.Errorf("%s: does not parse as a private key of SSH", name), "name the private half, which has no .pub at its end"} // the parser may quote
	}
	for _, s := range ofAgent {
		if locked.PublicKey != nil && has([]ssh.Signer{s}, locked.PublicKey) {
			return s, nil
		}
	}
	if !named {
		return nil, nil
	}
	if i.ask == nil {
		return nil, &Error{fmt.Errorf("%s: the key is encrypted, and nobody is here to ask for its passphrase", name), "give it to an ssh-agent first: ssh-add " + name}
	}
	return i.unlock(name, data)
}

func (i *identities) unlock(name string, data []byte) (ssh.Signer, error) {
	pass, err := i.ask("Passphrase of " + name + ": ")
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	signer, err := ssh.ParsePrivateKeyWithPassphrase(data, pass)
	if err != nil {
		return nil, &Error{fmt.Errorf("%s: the passphrase is not right", name), "run the same command again"}
	}
	return signer, nil
}

// withCertificate shows the certificate beside a key's file, where there is one, as
// ssh does.
func withCertificate(name string, signer ssh.Signer) ssh.Signer {
	data, err := os.ReadFile(strings.TrimSuffix(name, ".pub") + "-cert.pub")
	if err != nil {
		return signer
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	certificate, ok := key.(*ssh.Certificate)
	if err != nil || !ok {
		return signer
	}
	certified, err := ssh.NewCertSigner(certificate, signer)
	if err != nil {
		return signer
	}
	return certified
}
