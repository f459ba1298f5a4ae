package controller

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestEachCertificateHasALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "issued.jsonl")
	l, err := OpenIssuanceLog(path)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	within(t, func(o *CSROptions) { o.Issuance = l }, func(t *testing.T, b *bench) {
		for i := range 10 {
			if i == 5 { // as logrotate does
				if err := os.Rename(path, path+".1"); err != nil {
					t.Error(err)
				}
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
			name := fmt.Sprint("csr-", i)
			b.create(bootstrap(t, name, "n1", key))
			waitFor(t, "it is issued", func() bool { return b.state(name) == csr.Issued })
			leaf, _ := readLeaf(b.get(name).Status.Certificate)
			lines := readIssuance(t, path)
			last := lines[len(lines)-1]
			sum := b.loop.ledger.entries[name].claim.key
			if last.Name != name || last.Serial != trust.SerialText(leaf.serial) || !last.NotAfter.Equal(leaf.notAfter) || last.Key != hex.EncodeToString(sum[:]) {
				t.Errorf("line %d is %+v", i, last)
			}
		}
	})
	if err := l.Sync(); err != nil {
		t.Error(err)
	}
	if a, b := len(readIssuance(t, path+".1")), len(readIssuance(t, path)); a != 5 || b != 5 {
		t.Errorf("%d and %d lines", a, b)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
}

func readIssuance(t *testing.T, path string) []Issuance {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []Issuance
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var i Issuance
		if err := json.Unmarshal(lines.Bytes(), &i); err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

func TestNothingIsIssuedThatCannotBeLogged(t *testing.T) {
	l, err := OpenIssuanceLog(filepath.Join(t.TempDir(), "issued.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	within(t, func(o *CSROptions) { o.Issuance = l }, func(t *testing.T, b *bench) {
		b.create(bootstrap(t, "one", "n1", newKey(t)))
		waitFor(t, "it is approved", func() bool { return b.state("one") == csr.Approved })
		if err := l.Reopen(); err == nil {
			t.Log("the log is open again") // closing the old file fails, and says so
		}
		waitFor(t, "it is issued", func() bool { return b.state("one") == csr.Issued })
	})
}

// TestSerialsAreWrittenInPairsOfDigits also where they begin with a small octet.
func TestSerialsAreWrittenInPairsOfDigits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "issued.jsonl")
	l, err := OpenIssuanceLog(path)
	if err != nil {
		t.Fatal(err)
	}
	small := leaf{serial: big.NewInt(0xabc)}
	if err := l.append(csr.Request{}, &item{}, signature{leaf: small}); err != nil {
		t.Fatal(err)
	}
	if got := readIssuance(t, path)[0].Serial; got != "0ABC" {
		t.Errorf("the issuance log has %s", got)
	}
	if got := leafAttrs(small)[0].Value.String(); got != "0ABC" {
		t.Errorf("the log has %s", got)
	}
}
