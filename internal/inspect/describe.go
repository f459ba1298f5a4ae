package inspect

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/kubepki/kubepki/internal/trust"
)

// maxParts bounds the parts of a file; maxDepth how deep files stand in files:
// a kubeconfig in a Secret in a List.
const (
	maxParts = 4000
	maxDepth = 4
)

// ErrUnknown tells that a file holds nothing that kubepki knows.
var ErrUnknown = errors.New("is none of PEM, DER, a kubeconfig, a Kubernetes manifest with credentials, or a token")

// Describe says what a file holds. What is wrong with a part of it is the
// part's Problem; an error means that the file as a whole is nothing known or
// cannot be read. Errors and problems name lines and fields, never content.
func Describe(data []byte) (*Description, error) {
	if len(data) > MaxSize {
		return nil, errors.New("larger than 1 MiB: not a credential of a cluster")
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty")
	}
	d := &describer{}
	format, err := d.file(data)
	if err != nil {
		return nil, err
	}
	return &Description{Format: format, Parts: d.parts}, nil
}

// describer collects parts.
type describer struct {
	parts []Part
	depth int
}

func (d *describer) add(p Part) error {
	if len(d.parts) >= maxParts {
		return fmt.Errorf("holds more than %d parts", maxParts)
	}
	d.parts = append(d.parts, p)
	return nil
}

// file describes a whole file by its content; names and extensions say nothing.
func (d *describer) file(data []byte) (Format, error) {
	if hasBoundary(data) {
		return PEM, d.pem("", data)
	}
	if data[0] == 0x30 && !isText(data) {
		return DER, d.der("", data)
	}
	if !isText(data) {
		return "", ErrUnknown
	}
	text := string(bytes.TrimSpace(data))
	if looksLikeToken(text) {
		return TokenFile, d.token("", text)
	}
	if inner, ok := decodeBase64(text); ok && (hasBoundary(inner) || inner[0] == 0x30) {
		_, err := d.file(inner)
		return Base64, err
	}
	return d.documents(data)
}

// hasBoundary tells whether a line begins a PEM block. In YAML such a line is
// indented, in JSON it is within another.
func hasBoundary(data []byte) bool {
	return bytes.HasPrefix(data, []byte("-----BEGIN ")) || bytes.Contains(data, []byte("\n-----BEGIN "))
}

func isText(data []byte) bool {
	return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0
}

// decodeBase64 decodes a text that is wrapped or not.
func decodeBase64(text string) ([]byte, bool) {
	compact := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, text)
	if len(compact) < 16 {
		return nil, false
	}
	out, err := base64.StdEncoding.DecodeString(compact)
	return out, err == nil && len(out) > 0
}

// pem describes a PEM text. Blocks that do not parse are problems of their own.
func (d *describer) pem(field string, data []byte) error {
	blocks, err := trust.Blocks(data)
	if err != nil && field == "" {
		return errors.New(plain(err.Error())) // it quotes the label of a block
	}
	if err != nil {
		return d.add(Part{Kind: KindOther, Field: field, Problem: plain(err.Error())})
	}
	for _, b := range blocks {
		p := describeBlock(b)
		p.Field, p.Line = field, b.Line
		if err := d.add(p); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) token(field, text string) error {
	t, err := readToken(text)
	if err != nil {
		return d.add(Part{Kind: KindToken, Field: field, Problem: err.Error()})
	}
	return d.add(Part{Kind: KindToken, Field: field, Token: t})
}
