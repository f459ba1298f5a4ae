package remote

import (
	"bufio"
	"bytes"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Protocol is the version of what both ends speak. They must be of one version.
const Protocol = 1

// Bounds of what the other end may send.
const (
	maxLine  = 16 << 20  // bytes of one document
	maxNoise = 256 << 10 // bytes that a shell's profile may print before the first
	maxItems = 1000      // of one request
)

// Hello is the node's first document.
type Hello struct {
	Kubepki  string `json:"kubepki"` // always "node", so that the line can be found
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

// greeting is how the line of a Hello begins.
const greeting = `{"kubepki":"node",`

// Request is one question to the node; one of its fields is set.
type Request struct {
	Read  *ReadRequest  `json:"read,omitempty"`
	Keys  *KeysRequest  `json:"keys,omitempty"`
	Sign  *SignRequest  `json:"sign,omitempty"`
	Write *WriteRequest `json:"write,omitempty"`
	Undo  *UndoRequest  `json:"undo,omitempty"`

	Restarts *RestartsRequest `json:"restarts,omitempty"`
	Restart  *RestartRequest  `json:"restart,omitempty"`
	Back     *BackupRequest   `json:"back,omitempty"`
}

// ReadRequest asks for the facts of the node.
type ReadRequest struct {
	Name  string `json:"name"`  // of the node, in places
	Nonce string `json:"nonce"` // that proofs of keys hold
	// Mend finishes or takes back what an interrupted run left.
	Mend bool `json:"mend"`
	// Restarts keeps other restarts away until the streams end, and first brings back
	// what an interrupted one left: a component that stands aside would not be read.
	Restarts bool `json:"restarts,omitempty"`
}

// KeysRequest asks for keys, and for a request by each.
type KeysRequest struct {
	Items []KeyItem `json:"items"`
}

// KeyItem is one credential that gets a key.
type KeyItem struct {
	Name        string          `json:"name"`
	Kind        renew.Kind      `json:"kind"`
	Certificate trust.Place     `json:"certificate"`
	Key         trust.Place     `json:"key"`
	Algorithm   issue.Algorithm `json:"algorithm,omitempty"`
	Reuse       bool            `json:"reuse,omitempty"` // the key that is there
	// Cluster, User, Server and Anchors are of a kubeconfig.
	Cluster string   `json:"cluster,omitempty"`
	User    string   `json:"user,omitempty"`
	Server  string   `json:"server,omitempty"`
	Anchors [][]byte `json:"anchors,omitempty"` // certificates in DER
	Rewrite bool     `json:"rewrite,omitempty"` // the anchors are written
}

// SignRequest asks a node for certificates by an authority whose key it has.
type SignRequest struct {
	Certificate trust.Place  `json:"certificate"` // of the authority
	Key         trust.Place  `json:"key"`
	Wanted      []WantedLeaf `json:"wanted"`
}

// WantedLeaf is one certificate that an authority shall sign.
type WantedLeaf struct {
	PublicKey []byte    `json:"publicKey"` // PKIX
	Subject   []byte    `json:"subject"`   // DER
	DNSNames  []string  `json:"dnsNames,omitempty"`
	Addresses []string  `json:"addresses,omitempty"`
	URIs      []string  `json:"uris,omitempty"`
	Emails    []string  `json:"emails,omitempty"`
	Usages    []int     `json:"usages,omitempty"` // x509.ExtKeyUsage
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Extensions are those that are kept of an old certificate.
	Extensions []WantedExtension `json:"extensions,omitempty"`
}

// WantedExtension is an extension of RFC 5280 section 4.2.
type WantedExtension struct {
	ID       asn1.ObjectIdentifier `json:"id"`
	Critical bool                  `json:"critical,omitempty"`
	Value    []byte                `json:"value"` // DER
}

// WriteRequest brings the certificates for the keys of the last KeysRequest, in its
// order, and has all files written in one transaction.
type WriteRequest struct {
	At     time.Time  `json:"at"`
	Chains [][][]byte `json:"chains"`
}

// UndoRequest takes the last WriteRequest back.
type UndoRequest struct{}

// Answer is the node's to one request.
type Answer struct {
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`

	Facts        *Facts   `json:"facts,omitempty"`
	Requests     [][]byte `json:"requests,omitempty"`     // PKCS#10 in DER
	Certificates [][]byte `json:"certificates,omitempty"` // of a SignRequest
	Backup       string   `json:"backup,omitempty"`       // the folder, as on the node
	Warnings     []string `json:"warnings,omitempty"`
	Stay         []string `json:"stay,omitempty"` // files that an undo does not take away

	Restarts  []Restart  `json:"restarts,omitempty"`
	Restarted *Restarted `json:"restarted,omitempty"`
	Back      *Back      `json:"back,omitempty"`
}

// stream is one line of JSON after the other.
type stream struct {
	in  *bufio.Reader
	out io.Writer
}

func newStream(in io.Reader, out io.Writer) *stream {
	return &stream{bufio.NewReaderSize(in, 64<<10), out}
}

var errLong = fmt.Errorf("a document is longer than %d bytes", maxLine)

func (s *stream) line(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := s.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, errLong
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// hello reads the node's first document, after what its shell may have printed.
func (s *stream) hello() (Hello, error) {
	var h Hello
	for seen := 0; seen < maxNoise; {
		line, err := s.line(maxNoise)
		if err != nil {
			return h, err
		}
		if bytes.HasPrefix(line, []byte(greeting)) {
			return h, json.Unmarshal(line, &h)
		}
		seen += len(line)
	}
	return h, errors.New("something else than kubepki answers")
}

func (s *stream) read(into any) error {
	line, err := s.line(maxLine)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("a document does not parse: %w", err)
	}
	return nil
}

func (s *stream) write(document any) error {
	line, err := json.Marshal(document)
	if err != nil {
		return err
	}
	if len(line) >= maxLine {
		return errLong
	}
	_, err = s.out.Write(append(line, '\n'))
	return err
}
