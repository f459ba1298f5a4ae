package csr_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tester is what testing and rapid have in common.
type tester interface {
	Helper()
	Errorf(string, ...any)
	Error(...any)
	Fatalf(string, ...any)
	Fatal(...any)
}

// seen is what openssl finds in a request.
type seen struct {
	rdns       [][]string // "type:value" of each attribute, with the name of its string type
	attributes []string
	extensions []string
	dns        []string
	ips        [][]byte
	others     int // alternative names of other kinds
	verified   bool
}

// element is a line of openssl asn1parse.
type element struct {
	depth   int
	tag     string
	text    string // of an object identifier
	content []byte
}

var elementLine = regexp.MustCompile(`^\s*(\d+):d=(\d+)\s+hl=(\d+)\s+l=\s*(\d+) (?:prim|cons): (.{17})(?: :?(.*))?$`)

// openssl runs openssl, whose answer to a bad request is an error.
func openssl(input []byte, args ...string) ([]byte, error) {
	c := exec.Command("openssl", args...)
	c.Stdin = bytes.NewReader(input)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

func needOpenSSL(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: hack/deps.sh does it")
	}
}

func elements(t tester, der []byte, args ...string) []element {
	t.Helper()
	out, err := openssl(der, append([]string{"asn1parse", "-inform", "DER"}, args...)...)
	if err != nil {
		t.Fatalf("openssl cannot read what was approved: %v\n%s", err, out)
	}
	var all []element
	for line := range strings.Lines(string(out)) {
		m := elementLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			t.Fatalf("openssl says %q", line)
		}
		var n [4]int
		for i := range n {
			if n[i], err = strconv.Atoi(m[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		start := n[0] + n[2]
		all = append(all, element{n[1], strings.TrimSpace(m[5]), m[6], der[start : start+n[3]]})
	}
	return all
}

// reparse reads a request with openssl alone.
func reparse(t tester, der []byte) seen {
	t.Helper()
	var s seen
	out, err := openssl(der, "req", "-inform", "DER", "-noout", "-verify")
	s.verified = err == nil && bytes.Contains(out, []byte("verify OK"))
	all := elements(t, der)
	part, inAttributes := -1, false
	for i, e := range all {
		switch e.depth {
		case 1:
			part++
		case 2:
			inAttributes = part == 0 && strings.HasPrefix(e.tag, "cont [ 0 ]")
		}
		if part != 0 {
			continue
		}
		switch {
		case !inAttributes && e.depth == 3 && e.tag == "SET":
			s.rdns = append(s.rdns, nil)
		case !inAttributes && e.depth == 5 && e.tag == "OBJECT" && len(s.rdns) > 0:
			last := &s.rdns[len(s.rdns)-1]
			*last = append(*last, fmt.Sprintf("%s %s:%s", e.text, all[i+1].tag, all[i+1].content))
		case inAttributes && e.depth == 4 && e.tag == "OBJECT":
			s.attributes = append(s.attributes, e.text)
		case inAttributes && e.depth == 7 && e.tag == "OBJECT":
			s.extensions = append(s.extensions, e.text)
		case inAttributes && e.depth == 7 && e.tag == "OCTET STRING":
			s.readNames(t, e.content)
		}
	}
	return s
}

func (s *seen) readNames(t tester, der []byte) {
	t.Helper()
	for _, e := range elements(t, der)[1:] {
		switch {
		case e.depth == 1 && e.tag == "cont [ 2 ]":
			s.dns = append(s.dns, string(e.content))
		case e.depth == 1 && e.tag == "cont [ 7 ]":
			s.ips = append(s.ips, e.content)
		default:
			s.others++
		}
	}
}

// sameInPEM tells whether openssl reads from a PEM text what encoding/pem does.
func sameInPEM(t tester, text []byte) (der []byte) {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 || block.Type != "CERTIFICATE REQUEST" {
		t.Fatalf("what was approved is not one PEM block to encoding/pem: %q", text)
	}
	out, err := openssl(text, "req", "-inform", "PEM", "-outform", "DER")
	if err != nil {
		return block.Bytes // openssl does not take lines as long as encoding/pem does
	}
	if !bytes.Equal(out, block.Bytes) {
		t.Fatalf("openssl reads another request from the PEM text: %x, not %x", out, block.Bytes)
	}
	return block.Bytes
}
