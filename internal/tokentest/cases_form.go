package tokentest

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/kubepki/kubepki/token"
)

func formCases(now time.Time) []Case {
	p := Payload(now)
	good := Good(p)
	parts := strings.Split(good, ".")
	return []Case{
		{Name: "nothing", Token: "", Want: token.Malformed},
		{Name: "two dots", Token: "..", Want: token.Malformed},
		{Name: "one part", Token: parts[0], Want: token.Malformed},
		{Name: "two parts", Token: parts[0] + "." + parts[1], Want: token.Malformed},
		{Name: "four parts", Token: good + "." + parts[2], Want: token.Malformed},
		{Name: "an empty part at the end", Token: good + ".", Want: token.Malformed},
		{Name: "an empty header", Token: "." + parts[1] + "." + parts[2], Want: token.Malformed},
		{Name: "an empty payload", Token: parts[0] + ".." + parts[2], Want: token.Malformed},
		{Name: "JSON with one signature", Token: `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, Want: token.Malformed},
		{Name: "JSON with two signatures", Token: `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"},{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`, Want: token.Malformed},
		{Name: "JSON after a blank", Token: ` {"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, Want: token.Malformed},
		{Name: "Bearer before it", Token: "Bearer " + good, Want: token.Malformed},
		{Name: "a blank before it", Token: " " + good, Want: token.Malformed, Stricter: true},
		{Name: "a line end after it", Token: good + "\n", Want: token.Malformed, Stricter: true},
		{Name: "a line end in the header", Token: parts[0][:9] + "\n" + good[9:], Want: token.Malformed, Stricter: true},
		{Name: "a line end in the payload", Token: parts[0] + "." + parts[1][:9] + "\r\n" + parts[1][9:] + "." + parts[2], Want: token.Malformed, Stricter: true},
		{Name: "a line end in the signature", Token: good[:len(good)-9] + "\n" + good[len(good)-9:], Want: token.Malformed, Stricter: true},
		{Name: "a tab in the signature", Token: good[:len(good)-9] + "\t" + good[len(good)-9:], Want: token.Malformed, Stricter: true},
		{Name: "a zero byte at the end", Token: good + "\x00", Want: token.Malformed},
		{Name: "padding after the signature", Token: good + "==", Want: token.Malformed},
		{Name: "padding after the header", Token: parts[0] + "=." + parts[1] + "." + parts[2], Want: token.Malformed},
		{Name: "the alphabet of common base64", Token: parts[0] + "." + parts[1] + "." + base64.RawStdEncoding.EncodeToString([]byte("\xfb\xff\xfe")), Want: token.Malformed},
		{Name: "bits set beyond the last byte of the signature", Token: loose(good), Want: token.Malformed, Stricter: true},
		{Name: "a character that completes no byte", Token: good + "AAA", Want: token.Malformed},
		{Name: "a homoglyph in the header", Token: strings.Replace(good, "e", "е", 1), Want: token.Malformed},
		{Name: "a token of a megabyte and a bit", Token: strings.Repeat("A", token.MaxSize+1), Want: token.TooLarge},
		{Name: "dots alone", Token: strings.Repeat(".", 1000), Want: token.Malformed},
	}
}

// loose sets bits of the last character that no byte has. An RSA-2048 signature
// has 256 bytes, so its last character holds four bits too many.
func loose(good string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	return good[:len(good)-1] + string(alphabet[last|1])
}

func jsonCases(now time.Time) []Case {
	p := Payload(now)
	raw := func(payload string) string { return Forge(Header(RSA).Text(), payload, "RS256", Key(RSA), nil) }
	text := p.Text()
	nested := func(depth int) string {
		return Good(p.And("x", strings.Repeat("[", depth-1)+strings.Repeat("]", depth-1)))
	}
	objects := func(depth int) string {
		return Good(p.And("x", strings.Repeat(`{"a":`, depth-1)+"1"+strings.Repeat("}", depth-1)))
	}
	members := func(n int) string {
		o := p
		for i := range n {
			o = append(o, Member{"x" + strings.Repeat("y", i%7) + at(time.Unix(int64(i), 0)), "1"})
		}
		return Good(o)
	}
	return []Case{
		{Name: "blanks within the JSON", Token: raw(strings.Replace(text, ":", " : ", 1) + " \n")},
		{Name: "escapes in names and values", Token: raw(strings.ReplaceAll(strings.Replace(text, `"iss"`, `"\u0069ss"`, 1), "kubernetes.default", `kubern\u0065tes.default`))},
		{Name: "something after the JSON", Token: raw(text + "{}"), Want: token.Malformed},
		{Name: "a comma too many", Token: raw(text[:len(text)-1] + ",}"), Want: token.Malformed},
		{Name: "a byte order mark", Token: raw("\xef\xbb\xbf" + text), Want: token.Malformed},
		{Name: "a comment", Token: raw("/* */" + text), Want: token.Malformed},
		{Name: "NaN", Token: raw(strings.Replace(text, `"exp":`, `"x":NaN,"exp":`, 1)), Want: token.Malformed},
		{Name: "a number with a leading zero", Token: raw(strings.Replace(text, `"exp":`, `"exp":0`, 1)), Want: token.Malformed},
		{Name: "a number in hexadecimal", Token: raw(strings.Replace(text, `"exp":`, `"exp":0x`, 1)), Want: token.Malformed},
		{Name: "a payload that is an array", Token: raw("[" + text + "]"), Want: token.Malformed},
		{Name: "a payload that is a text", Token: raw(`"x"`), Want: token.Malformed},
		{Name: "a payload that is null", Token: raw("null"), Want: token.IssuerUnknown},
		{Name: "an empty payload object", Token: raw("{}"), Want: token.IssuerUnknown},
		{Name: "bytes that are not UTF-8 in a value", Token: raw(p.And("x", "\"\xff\"").Text()), Want: token.Malformed, Stricter: true},
		{Name: "bytes that are not UTF-8 in a name", Token: raw(p.And("\xff", "1").Text()), Want: token.Malformed, Stricter: true},
		{Name: "half a surrogate pair", Token: raw(p.And("x", `"\ud800"`).Text()), Want: token.Malformed, Stricter: true},
		{Name: "a whole surrogate pair", Token: raw(p.And("x", `"\ud83d\ude00"`).Text())},
		{Name: "a name twice in a claim that nobody reads", Token: Good(p.And("x", `{"a":1,"a":1}`)), Want: token.Malformed, Stricter: true},
		{Name: "a name twice at the top that nobody reads", Token: Good(p.And("x", "1").And("x", "1")), Want: token.Malformed},
		{Name: "a name twice deep below", Token: Good(p.And("x", `[[{"a":{"b":1,"\u0062":2}}]]`)), Want: token.Malformed, Stricter: true},
		{Name: "brackets in a text are not nesting", Token: Good(p.And("x", quoted(strings.Repeat("[{", 50))))},
		{Name: "an escaped quote before brackets", Token: Good(p.And("x", `"\"`+strings.Repeat("[", 50)+`"`))},
		{Name: "arrays nested 32 deep", Token: nested(32)},
		{Name: "arrays nested 33 deep", Token: nested(33), Want: token.Malformed, Stricter: true},
		{Name: "objects nested 32 deep", Token: objects(32)},
		{Name: "objects nested 33 deep", Token: objects(33), Want: token.Malformed, Stricter: true},
		{Name: "arrays nested 100,000 deep", Token: nested(100000), Want: token.Malformed},
		{Name: "900 claims more", Token: members(900)},
		{Name: "1,000 claims more", Token: members(1000), Want: token.Malformed, Stricter: true},
		{Name: "a payload of half a megabyte", Token: Good(p.And("x", quoted(strings.Repeat("x", 500_000))))},
		{Name: "a payload of a megabyte", Token: Good(p.And("x", quoted(strings.Repeat("x", 1_000_000)))), Want: token.TooLarge, Stricter: true},
		{Name: "a header nested 33 deep", Token: GoodUnder(Header(RSA).And("x", strings.Repeat("[", 32)+strings.Repeat("]", 32)), p), Want: token.Malformed, Stricter: true},
	}
}
