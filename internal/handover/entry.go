package handover

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Kind says what the content of an [Entry] is.
type Kind string

// The kinds of an [Entry].
const (
	Authority   Kind = "authority"   // its certificate
	Anchors     Kind = "anchors"     // certificates that are trusted
	Certificate Kind = "certificate" // of a client
	PrivateKey  Kind = "private key"
	PublicKeys  Kind = "public keys"
)

// Entry is one file that control planes share.
type Entry struct {
	Name string // in the Secret
	File string // below the folder of certificates; "" for etcd elsewhere, whose files may stand anywhere
	Kind Kind
	// Pair is the entry that a private key belongs to.
	Pair string
	// Ours tells that kubeadm does not know it, and leaves it where it is.
	Ours bool
}

// Private tells whether nobody but the owner may read the file.
func (e Entry) Private() bool { return e.Kind == PrivateKey }

// Names of the files of an etcd that is elsewhere (copycerts.go).
const (
	ExternalEtcdCA   = "external-etcd-ca.crt"
	ExternalEtcdCert = "external-etcd.crt"
	ExternalEtcdKey  = "external-etcd.key"
)

// Entries are those of a cluster whose etcd runs on its control planes, or
// elsewhere. Those that are ours come last.
func Entries(externalEtcd bool) []Entry {
	all := []Entry{
		{Name: "ca.crt", File: "ca.crt", Kind: Authority},
		{Name: "ca.key", File: "ca.key", Kind: PrivateKey, Pair: "ca.crt"},
		{Name: "front-proxy-ca.crt", File: "front-proxy-ca.crt", Kind: Authority},
		{Name: "front-proxy-ca.key", File: "front-proxy-ca.key", Kind: PrivateKey, Pair: "front-proxy-ca.crt"},
		{Name: "sa.pub", File: "sa.pub", Kind: PublicKeys},
		{Name: "sa.key", File: "sa.key", Kind: PrivateKey, Pair: "sa.pub"},
	}
	if externalEtcd {
		all = append(all, Entry{Name: ExternalEtcdCA, Kind: Anchors}, Entry{Name: ExternalEtcdCert, Kind: Certificate}, Entry{Name: ExternalEtcdKey, Kind: PrivateKey, Pair: ExternalEtcdCert})
	} else {
		all = append(all, Entry{Name: "etcd-ca.crt", File: "etcd/ca.crt", Kind: Authority}, Entry{Name: "etcd-ca.key", File: "etcd/ca.key", Kind: PrivateKey, Pair: "etcd-ca.crt"})
	}
	return append(all,
		Entry{Name: "root-ca.crt", File: "root-ca.crt", Kind: Authority, Ours: true}, // its key signs no leaf, and stays where it is
		Entry{Name: "client-ca.crt", File: "client-ca.crt", Kind: Anchors, Ours: true},
		Entry{Name: "kubelet-ca.crt", File: "kubelet-ca.crt", Kind: Authority, Ours: true},
		Entry{Name: "kubelet-ca.key", File: "kubelet-ca.key", Kind: PrivateKey, Pair: "kubelet-ca.crt", Ours: true},
	)
}

// bounds of what is read: the API takes no Secret above 1 MiB.
const (
	maxEntries = 64
	maxEntry   = 1 << 20
)

// Seal encrypts contents, by the names of entries. Those that are kubeadm's and not
// there become empty, without which kubeadm refuses the Secret.
func Seal(k Key, contents map[string][]byte, externalEtcd bool) (map[string][]byte, error) {
	if err := Check(contents); err != nil {
		return nil, err
	}
	data := map[string][]byte{}
	for _, e := range Entries(externalEtcd) {
		content := contents[e.Name]
		switch {
		case len(content) > 0:
			sealed, err := k.seal(content)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.Name, err)
			}
			data[e.Name] = sealed
		case !e.Ours:
			data[e.Name] = []byte{}
		}
	}
	return data, nil
}

// Sealed is what a Secret held.
type Sealed struct {
	// Contents are by the names of entries; what was empty is not in it.
	Contents     map[string][]byte
	ExternalEtcd bool
	// Empty are the entries that nobody put anything into: an authority whose key is
	// elsewhere.
	Empty []string
	// Unknown are the names that nobody knows, and which were not looked at.
	Unknown []string
}

// Open decrypts the data of a Secret. All entries of kubeadm must be there, whole
// and fitting together; nothing is returned else. The errors hold no content.
func Open(k Key, data map[string][]byte) (*Sealed, error) {
	if len(data) > maxEntries {
		return nil, fmt.Errorf("has %d entries, which is more than %d: it is no Secret of upload-certs", len(data), maxEntries)
	}
	_, external := data[ExternalEtcdCert]
	s := &Sealed{Contents: map[string][]byte{}, ExternalEtcd: external}
	known := map[string]bool{}
	var missing []string
	for _, e := range Entries(external) {
		known[e.Name] = true
		sealed, there := data[e.Name]
		switch {
		case !there && !e.Ours:
			missing = append(missing, e.Name)
		case len(sealed) > maxEntry:
			return nil, fmt.Errorf("%s: has %d bytes, more than %d", e.Name, len(sealed), maxEntry)
		case there && len(sealed) == 0:
			s.Empty = append(s.Empty, e.Name)
		case there:
			content, err := k.open(sealed)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.Name, err)
			}
			s.Contents[e.Name] = content
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("does not hold %s: it is no Secret of upload-certs, or of an etcd of another kind", strings.Join(missing, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if !known[name] {
			s.Unknown = append(s.Unknown, name)
		}
	}
	return s, Check(s.Contents)
}

// Paths tells where on the node the entries stand: below the folder of certificates,
// and those of an etcd elsewhere where etcd says.
func Paths(folder string, external map[string]string) (map[string]string, error) {
	paths := map[string]string{}
	for _, e := range Entries(external != nil) {
		paths[e.Name] = path.Join(folder, e.File)
		if e.File == "" {
			paths[e.Name] = external[e.Name]
		}
		if !path.IsAbs(paths[e.Name]) {
			return nil, errors.New(e.Name + ": where it stands on the node is not known")
		}
	}
	return paths, nil
}
