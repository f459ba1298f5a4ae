package renew_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// attribute is one of a name, with the type of text that it is written in.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type relativeSET []attribute

var (
	uid       = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	domain    = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	email     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	unit      = asn1.ObjectIdentifier{2, 5, 4, 11}
	place     = asn1.ObjectIdentifier{2, 5, 4, 7}
	policies  = asn1.ObjectIdentifier{2, 5, 29, 32}
	comment   = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}
	mustHave  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	somewhere = asn1.ObjectIdentifier{2, 5, 29, 31}
	logged    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
	sanOID    = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// drawnName is the subject of a component with whatever else somebody wrote into it:
// in any order, in several types of text, several of it in one relative name.
func drawnName(t *rapid.T, commonName string) []byte {
	text := func(of asn1.ObjectIdentifier, label string) attribute {
		v := rapid.SampledFrom([]string{"ops", "night shift", "Füssen", "a+b,c=d"}).Draw(t, label)
		tag := asn1.TagUTF8String
		if v == "ops" || v == "night shift" {
			tag = rapid.SampledFrom([]int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String}).Draw(t, label+" type")
		}
		return attribute{of, asn1.RawValue{Tag: tag, Bytes: []byte(v)}}
	}
	cn := attribute{asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(commonName)}}
	all := []relativeSET{{cn}}
	for i := range rapid.IntRange(0, 4).Draw(t, "more") {
		of := rapid.SampledFrom([]asn1.ObjectIdentifier{uid, domain, email, unit, place}).Draw(t, fmt.Sprint("kind", i))
		relative := relativeSET{text(of, fmt.Sprint("text", i))}
		if rapid.Bool().Draw(t, fmt.Sprint("together", i)) {
			relative = append(relative, text(unit, fmt.Sprint("beside", i)))
		}
		slices.SortFunc(relative, func(a, b attribute) int {
			x, _ := asn1.Marshal(a)
			y, _ := asn1.Marshal(b)
			return bytes.Compare(x, y)
		})
		at := rapid.IntRange(0, len(all)).Draw(t, fmt.Sprint("at", i))
		all = slices.Insert(all, at, relative)
	}
	der, err := asn1.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// drawnExtensions are some that a certificate may have beside those of every one.
func drawnExtensions(t *rapid.T) []pkix.Extension {
	policy, _ := asn1.Marshal([][]asn1.ObjectIdentifier{{{1, 2, 3, 4}}})
	note, _ := asn1.Marshal("made by somebody")
	feature, _ := asn1.Marshal([]int{5})
	points, _ := asn1.Marshal([]struct{}{})
	return rapid.SliceOfDistinct(rapid.SampledFrom([]pkix.Extension{
		{Id: policies, Value: policy}, {Id: comment, Value: note}, {Id: mustHave, Value: feature}, {Id: somewhere, Value: points}, {Id: logged, Value: note},
		{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Value: []byte{5, 0}}, {Id: asn1.ObjectIdentifier{1, 2, 3, 4, 6}, Value: []byte{5, 0}},
	}), func(e pkix.Extension) string { return e.Id.String() }).Draw(t, "extensions")
}

// otherName is a user principal name of Microsoft, which Go does not read.
func otherName() asn1.RawValue {
	value, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("night@example.test")})
	wrapped, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: value})
	oid, _ := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3})
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, wrapped...)}
}

// drawnNames adds alternative names; some of kinds that Go does not read.
func drawnNames(t *rapid.T, c *x509.Certificate) {
	some := func(label string, of ...string) []string {
		return rapid.SliceOfDistinct(rapid.SampledFrom(of), func(s string) string { return s }).Draw(t, label)
	}
	c.DNSNames = append(slices.Clone(c.DNSNames), some("DNS", "lb.example.test", "*.apps.example.test", "api.EXAMPLE.test")...)
	c.EmailAddresses = some("mail", "ops@example.test", "night@example.test")
	for _, a := range some("addresses", "192.0.2.7", "2001:db8::7") {
		ip := net.ParseIP(a)
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		c.IPAddresses = append(slices.Clone(c.IPAddresses), ip)
	}
	for _, u := range some("URIs", "spiffe://example.test/ns/a/sa/b", "https://example.test/x") {
		parsed, _ := url.Parse(u)
		c.URIs = append(c.URIs, parsed)
	}
	if !rapid.Bool().Draw(t, "other names") {
		return
	}
	var all []asn1.RawValue
	add := func(tag int, v []byte) {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: v})
	}
	for _, n := range c.DNSNames {
		add(2, []byte(n))
	}
	for _, n := range c.EmailAddresses {
		add(1, []byte(n))
	}
	for _, n := range c.IPAddresses {
		add(7, n)
	}
	for _, n := range c.URIs {
		add(6, []byte(n.String()))
	}
	der, err := asn1.Marshal(append(all, otherName()))
	if err != nil {
		t.Fatal(err)
	}
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: sanOID, Value: der})
}

// kept is what a certificate says of its owner, but for what a new one has anew.
func kept(c *x509.Certificate) string {
	var more []string
	for _, e := range c.Extensions {
		if !slices.ContainsFunc([]asn1.ObjectIdentifier{{2, 5, 29, 14}, {2, 5, 29, 35}, logged}, e.Id.Equal) {
			more = append(more, fmt.Sprintf("%s %t %x", e.Id, e.Critical, e.Value))
		}
	}
	slices.Sort(more)
	return fmt.Sprintf("subject %x, life %s, extensions:\n%s", c.RawSubject, c.NotAfter.Sub(c.NotBefore), strings.Join(more, "\n"))
}

// TestANewOneIsTheOldOneButForWhatIsAnew: serial, dates, key, the ids of both keys, and
// what a log once said of the old one are all that differs, to the byte.
func TestANewOneIsTheOldOneButForWhatIsAnew(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	good := c.Read("cp1", "pki/apiserver.crt")
	scheduler := c.Read("cp1", "scheduler.conf")
	rapid.Check(t, func(r *rapid.T) {
		c.Write("cp1", "pki/apiserver.crt", good)
		c.Write("cp1", "scheduler.conf", scheduler)
		draw := func(commonName string) testpki.Change {
			return func(x *x509.Certificate) {
				x.RawSubject = drawnName(r, commonName)
				x.ExtraExtensions = drawnExtensions(r)
				drawnNames(r, x)
				x.NotAfter = x.NotBefore.Add(time.Duration(rapid.IntRange(40, 400).Draw(r, "days")) * 24 * time.Hour)
			}
		}
		c.Reissue("cp1", "apiserver", "ca", draw("kube-apiserver"))
		c.ReissueConf("cp1", "scheduler.conf", "ca", draw("system:kube-scheduler"))
		for _, target := range []string{"apiserver", "scheduler.conf"} {
			item, made := one(t, c, target)
			was, is := item.Old, made.Chain[0]
			if a, b := kept(was), kept(is); a != b {
				r.Errorf("%s: was %s\nis %s", target, a, b)
			}
			if trust.SameKey(was.PublicKey, is.PublicKey) || was.SerialNumber.Cmp(is.SerialNumber) == 0 {
				r.Errorf("%s: key or serial are the old ones", target)
			}
		}
	})
}

// TestOfAWrongNameAllElseIsKept: name and groups are mended where they stood, and the
// other parts of the subject keep order, company and types of text.
func TestOfAWrongNameAllElseIsKept(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	scheduler := c.Read("cp1", "scheduler.conf")
	rapid.Check(t, func(r *rapid.T) {
		c.Write("cp1", "scheduler.conf", scheduler)
		var wrong []byte
		c.ReissueConf("cp1", "scheduler.conf", "ca", func(x *x509.Certificate) {
			wrong = drawnName(r, "somebody")
			x.RawSubject = wrong
		})
		_, made := one(t, c, "scheduler.conf")
		is := made.Chain[0]
		var before, after []relativeSET
		if _, err := asn1.Unmarshal(wrong, &before); err != nil {
			r.Fatal(err)
		}
		if _, err := asn1.Unmarshal(is.RawSubject, &after); err != nil {
			r.Fatal(err)
		}
		if len(before) != len(after) {
			r.Fatalf("%d parts, were %d", len(after), len(before))
		}
		for i := range before {
			a, _ := asn1.Marshal(before[i])
			b, _ := asn1.Marshal(after[i])
			a = bytes.Replace(a, []byte("somebody"), []byte("system:kube-scheduler"), 1)
			if before[i][0].Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
				if string(after[i][0].Value.Bytes) != "system:kube-scheduler" {
					r.Errorf("the name is %q", after[i][0].Value.Bytes)
				}
				continue
			}
			if !bytes.Equal(a, b) {
				r.Errorf("part %d was %x and is %x", i, a, b)
			}
		}
		if is.Subject.CommonName != "system:kube-scheduler" {
			r.Errorf("the subject is %s", is.Subject)
		}
	})
}

// TestWhatHeldOfTheOldOneAloneIsNotKept, and it is said.
func TestWhatHeldOfTheOldOneAloneIsNotKept(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	note, none := []byte{5, 0}, []byte{0x30, 0}
	c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
		x.ExtraExtensions = []pkix.Extension{{Id: logged, Value: note}, {Id: somewhere, Value: none}, {Id: comment, Value: note}}
	})
	c.Recreate("cp1", "ca") // where its lists are is another authority's word then
	item, made := one(t, c, "apiserver")
	for _, e := range made.Chain[0].Extensions {
		if e.Id.Equal(logged) || e.Id.Equal(somewhere) {
			t.Errorf("extension %s is kept", e.Id)
		}
	}
	said := strings.Join(item.Warnings, "\n")
	for _, want := range []string{logged.String() + " of the old certificate is not kept", somewhere.String() + " of the old certificate is not kept"} {
		if !strings.Contains(said, want) {
			t.Errorf("not said: %s, but %q", want, said)
		}
	}
	if !slices.ContainsFunc(made.Chain[0].Extensions, func(e pkix.Extension) bool { return e.Id.Equal(comment) }) {
		t.Error("the comment is gone")
	}
}
