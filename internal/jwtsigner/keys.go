package jwtsigner

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/reload"
	"github.com/kubepki/kubepki/token"
)

// KeysConfig is what [OpenKeys] needs.
type KeysConfig struct {
	Files Files
	// PublishFirst is for how long a key is published before it signs; 0: not at
	// all.
	PublishFirst time.Duration
	Log          *slog.Logger // nil: slog.Default
}

// Keys are the keys of the issuer, read again from their files when they change:
// the one that signs, and those that verify. It may be used by several
// goroutines.
//
// At the start the signing key signs at once. Another one that takes its place
// in the file is published at once, and signs when both are so:
//
//   - it has been published for the time of the configuration, counted from
//     when the API server first asked for keys and was told of it. Whoever has
//     the published keys in a cache has it then too;
//   - the key that signs until then is in a file for publishing. What it has
//     signed is thus verified on, after this process has ended as well.
//
// Until then the key from before signs.
type Keys struct {
	files *reload.Files[*loaded]
	first time.Duration
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	signer *token.Signer
	told   map[string]time.Time // when the API server was first told of a key
	said   string               // why another key does not sign yet
}

// OpenKeys reads the keys. The error names the file.
func OpenKeys(c KeysConfig) (*Keys, error) {
	if c.Files.Held == nil && c.Files.Signing == "" {
		return nil, errors.New("there is no signing key")
	}
	if c.PublishFirst < 0 {
		return nil, errors.New("the time to publish a key before it signs is negative")
	}
	k := &Keys{first: c.PublishFirst, log: c.Log, told: make(map[string]time.Time)}
	if k.log == nil {
		k.log = slog.Default()
	}
	var err error
	if k.files, err = reload.New(c.Files.paths(), c.Files.load, k.hear); err != nil {
		return nil, err
	}
	first := k.files.Get()
	k.signer = first.signer
	if len(c.Files.Published) > 0 && !holds(first.published, k.signer.Key()) {
		k.log.Warn("the signing key is in no file of keys to publish: put its public half there before another takes its place", "key", k.signer.Key().ID)
	}
	return k, nil
}

func (k *Keys) hear(l *loaded, err error) {
	if err != nil {
		k.log.Error("changed keys were not taken up", "error", err.Error())
		return
	}
	k.log.Info("changed keys were taken up", "signing", l.signer.Key().ID, "published", len(l.published), "legacy", len(l.legacy))
}

// Signer returns what signs now.
func (k *Keys) Signer() *token.Signer {
	l := k.files.Get()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.promote(l)
	return k.signer
}

// Published is what the API server is told.
type Published struct {
	// Keys are told to everybody: the one that signs is first.
	Keys []token.Key
	// Legacy are for the API server alone.
	Legacy []token.Key
	// Waiting is the id of a key that is published and is to sign later; empty:
	// none.
	Waiting string
	// AsOf is when the files were known to hold these keys.
	AsOf time.Time
}

// Publish returns the keys for the API server: from now on they count as
// published.
func (k *Keys) Publish() Published { return k.look(true) }

// Look returns what Publish would, for others than the API server.
func (k *Keys) Look() Published { return k.look(false) }

func (k *Keys) look(tell bool) Published {
	l := k.files.Get()
	p := Published{AsOf: k.files.AsOf()}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.promote(l)
	p.Keys = []token.Key{k.signer.Key()}
	if next := l.signer.Key(); next.ID != p.Keys[0].ID {
		p.Keys, p.Waiting = append(p.Keys, next), next.ID
	}
	for _, key := range l.published {
		if !holds(p.Keys, key) {
			p.Keys = append(p.Keys, key)
		}
	}
	for _, key := range l.legacy {
		// The one from before may be among them already, and signs still.
		if key.ID != p.Keys[0].ID {
			p.Legacy = append(p.Legacy, key)
		}
	}
	if tell {
		k.note(p.Keys)
	}
	return p
}

// note remembers since when the API server knows of keys, and forgets those that
// it is no longer told of.
func (k *Keys) note(keys []token.Key) {
	now, told := time.Now(), make(map[string]time.Time, len(keys))
	for _, key := range keys {
		told[key.ID] = now
		if before, ok := k.told[key.ID]; ok {
			told[key.ID] = before
		}
	}
	k.told = told
}

// promote lets the key of the file sign, as soon as it may.
func (k *Keys) promote(l *loaded) {
	now, next := k.signer.Key(), l.signer.Key()
	if next.ID == now.ID {
		k.signer, k.said = l.signer, ""
		return
	}
	if why := k.notYet(l); why != "" {
		if why != k.said {
			k.log.Warn("the signing key was replaced, and the one from before goes on to sign: "+why, "signing", now.ID, "waiting", next.ID)
		}
		k.said = why
		return
	}
	k.log.Info("another key signs from now on", "signing", next.ID, "before", now.ID)
	k.signer, k.said = l.signer, ""
}

// notYet says why the key of the file does not sign yet.
func (k *Keys) notYet(l *loaded) string {
	if !holds(l.published, k.signer.Key()) {
		return "the key from before is in no file of keys to publish (--key): what it has signed would be refused. Put its public half there"
	}
	if k.first == 0 {
		return ""
	}
	since, told := k.told[l.signer.Key().ID]
	switch ready := since.Add(k.first); {
	case !told:
		return "the API server has not asked for the keys since then"
	case time.Now().Before(ready):
		return fmt.Sprintf("the new one is published first, until %s (--publish-first %s)", ready.UTC().Format(time.RFC3339), k.first)
	}
	return ""
}
