package trust_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/trust"
)

func block(label, body string) string {
	return "-----BEGIN " + label + "-----\n" + body + "\n-----END " + label + "-----\n"
}

func TestBlocksReadsWhatComponentsRead(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // TYPE@LINE
	}{
		"one block":                        {block("CERTIFICATE", "AAAA"), []string{"CERTIFICATE@1"}},
		"text before, between and after":   {"a: b\n" + block("X", "AAAA") + "between\n" + block("Y", "AAAA") + "after", []string{"X@2", "Y@6"}},
		"lines that end with CRLF":         {strings.ReplaceAll(block("X", "AAAA"), "\n", "\r\n"), []string{"X@1"}},
		"no end of line after the last":    {strings.TrimSpace(block("X", "AAAA")), []string{"X@1"}},
		"no block at all":                  {"junk", nil},
		"a line that only looks like one":  {"-----BEGIN nothing\n", nil},
		"a block that is empty":            {"-----BEGIN X-----\n-----END X-----\n", []string{"X@1"}},
		"white space behind the begin":     {"-----BEGIN X----- \nAAAA\n-----END X-----\n", []string{"X@1"}},
		"an encrypted key by its own type": {block("ENCRYPTED PRIVATE KEY", "AAAA"), []string{"ENCRYPTED PRIVATE KEY@1 encrypted"}},
	} {
		t.Run(name, func(t *testing.T) {
			blocks, err := trust.Blocks([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range blocks {
				s := b.Type + "@" + string(rune('0'+b.Line))
				if b.Encrypted {
					s += " encrypted"
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBlocksNamesTheLineOfWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a block without an end":           {"\n-----BEGIN X-----\nAAAA\n", "line 2: X block has no end"},
		"a begin within a block":           {"-----BEGIN X-----\nAAAA\n" + block("Y", "AAAA"), "line 1: X block has no end"},
		"another end":                      {"-----BEGIN X-----\nAAAA\n-----END Y-----\n", "line 1: X block does not decode"},
		"what is not base64":               {block("X", "!!!!"), "line 1: X block does not decode"},
		"more blocks than any file has":    {strings.Repeat(block("X", "AAAA"), trust.MaxBlocks+1), "more than 1000 PEM blocks"},
		"more bytes than any file has":     {strings.Repeat("x", trust.MaxPEM+1), "larger than 1048576 bytes"},
		"a begin that is repeated forever": {strings.Repeat("-----BEGIN X-----\n", 1000), "line 1: X block has no end"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := trust.Blocks([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, got %v", c.want, err)
			}
		})
	}
}

// FuzzBlocks: what is read, written again and read again is the same, and
// encoding/pem finds the same blocks.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte(block("CERTIFICATE", "AAAA")))
	f.Add([]byte("text\r\n" + block("PRIVATE KEY", "AAAA") + "more"))
	f.Add([]byte("-----BEGIN X-----\nA: b\n\nAAAA\n-----END X-----\n"))
	f.Add([]byte("-----BEGIN -----\n-----END -----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		blocks, err := trust.Blocks(data)
		if spent := time.Since(start); spent > 5*time.Second {
			t.Fatalf("%d bytes took %s", len(data), spent)
		}
		if err != nil {
			return
		}
		var text bytes.Buffer
		for _, b := range blocks {
			if err := pem.Encode(&text, &pem.Block{Type: b.Type, Bytes: b.DER}); err != nil {
				t.Fatal(err)
			}
		}
		again, err := trust.Blocks(text.Bytes())
		if err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		if len(again) != len(blocks) {
			t.Fatalf("%d blocks became %d", len(blocks), len(again))
		}
		rest := data
		for i, b := range blocks {
			if again[i].Type != b.Type || !bytes.Equal(again[i].DER, b.DER) {
				t.Fatalf("block %d changed", i)
			}
			var p *pem.Block
			if p, rest = pem.Decode(rest); p == nil || p.Type != b.Type || !bytes.Equal(p.Bytes, b.DER) {
				t.Fatalf("encoding/pem reads block %d otherwise", i)
			}
		}
	})
}
