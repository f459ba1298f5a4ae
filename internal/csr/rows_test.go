package csr_test

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/pem"
	"net/netip"
	"slices"
	"strings"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/kubepki/kubepki/internal/csr"
)

// row is one thing changed in a world that is in order.
type row struct {
	name    string
	from    func() *world
	change  func(*world)
	verdict csr.Verdict
	ids     []string // of the reasons, all of them
}

func approve(name string, from func() *world, change func(*world), id string) row {
	return row{name, from, change, csr.Approve, []string{id}}
}

func deny(name string, from func() *world, change func(*world), ids ...string) row {
	return row{name, from, change, csr.Deny, ids}
}

func undecided(name string, from func() *world, change func(*world), ids ...string) row {
	return row{name, from, change, csr.Undecided, ids}
}

func rows() []row {
	return slices.Concat(healthyRows(), stateRows(), pemRows(), derRows(), keyRows(), subjectRows(), requestedRows(), usageRows(),
		requesterRows(), nodeRows(), nameFormRows(), inClusterRows(), ownerRows(), confirmRows(), ruleRows())
}

func nothing(*world) {}

func healthyRows() []row {
	return []row{
		approve("a bootstrapper's first request", bootstrap, nothing, "node-bootstraps"),
		approve("a node's renewal", renewal, nothing, "node-renews"),
		approve("a node's serving certificate", serving, nothing, "node-serves"),
		approve("a node's serving certificate that every source confirms", confirmed, nothing, "node-serves"),
		approve("a user's request that a rule approves", ruled, nothing, "rule-approves"),
	}
}

func stateRows() []row {
	already := func(s csr.State) func(*world) { return func(w *world) { w.request.State = s } }
	return []row{
		undecided("a request that is approved", renewal, already(csr.Approved), "already-decided"),
		undecided("a request that is denied", renewal, already(csr.Denied), "already-decided"),
		undecided("a request that has failed", renewal, already(csr.Failed), "already-decided"),
		undecided("a request that is issued", renewal, already(csr.Issued), "already-decided"),
		undecided("a request without a state", renewal, already(""), "already-decided"),
		undecided("a denied request that is bad too", renewal, func(w *world) { w.request.State, w.text = csr.Denied, junk }, "already-decided"),
		undecided("the signer of users without a rule", renewal, signer(csr.KubeAPIServerClientSigner), "signer-without-rule"),
		undecided("the legacy signer without a rule", renewal, signer(csr.LegacyUnknownSigner), "signer-without-rule"),
		undecided("a signer of others", renewal, signer("example.com/other"), "signer-without-rule"),
		undecided("a bad request for a signer of others is not ours to deny", renewal,
			func(w *world) { w.request.SignerName, w.text = "example.com/other", junk }, "signer-without-rule"),
		undecided("no signer", renewal, signer(""), "signer-without-rule"),
		undecided("a signer in other letters", renewal, signer("kubernetes.io/Kubelet-serving"), "signer-without-rule"),
		deny("a bad request for the signer of users", renewal, func(w *world) { w.request.SignerName, w.text = csr.KubeAPIServerClientSigner, junk }, "pem-malformed"),
		deny("a bad signature for the legacy signer", renewal, func(w *world) {
			w.request.SignerName, w.shape.corruptSignature = csr.LegacyUnknownSigner, true
		}, "signature-invalid"),
		deny("a serving request sent to the clients' signer", serving, signer(csr.KubeAPIServerClientKubeletSigner), "usages-wrong", "san-not-allowed"),
		deny("a client request sent to the servers' signer", renewal, signer(csr.KubeletServingSigner), "usages-wrong", "san-missing"),
		deny("a life of a second", renewal, func(w *world) { w.request.ExpirationSeconds = seconds(1) }, "expiration-too-short"),
		deny("a life of 599 seconds", renewal, func(w *world) { w.request.ExpirationSeconds = seconds(599) }, "expiration-too-short"),
		deny("a life below zero", serving, func(w *world) { w.request.ExpirationSeconds = seconds(-1) }, "expiration-too-short"),
		approve("a life of 600 seconds", renewal, func(w *world) { w.request.ExpirationSeconds = seconds(600) }, "node-renews"),
		approve("the longest life there is", renewal, func(w *world) { w.request.ExpirationSeconds = seconds(1<<31 - 1) }, "node-renews"),
	}
}

func signer(name string) func(*world) { return func(w *world) { w.request.SignerName = name } }

func junk([]byte) []byte { return []byte("junk") }

func pemRows() []row {
	text := func(f func([]byte) []byte) func(*world) { return func(w *world) { w.text = f } }
	relabel := func(label string) func(*world) {
		return text(func(p []byte) []byte { return bytes.ReplaceAll(p, []byte("CERTIFICATE REQUEST"), []byte(label)) })
	}
	header := func(h string) func(*world) {
		return text(func(p []byte) []byte {
			return bytes.Replace(p, []byte("REQUEST-----\n"), []byte("REQUEST-----\n"+h), 1)
		})
	}
	around := func(before, after string) func(*world) {
		return text(func(p []byte) []byte { return slices.Concat([]byte(before), p, []byte(after)) })
	}
	flat := func(p []byte) []byte { block, _ := pem.Decode(p); return block.Bytes }
	return []row{
		deny("an empty request", renewal, text(func([]byte) []byte { return nil }), "pem-malformed"),
		deny("a request of blanks", renewal, text(func([]byte) []byte { return []byte(" \n\n") }), "pem-malformed"),
		deny("a request that is no PEM", renewal, text(junk), "pem-malformed"),
		deny("DER without PEM", renewal, text(flat), "pem-malformed"),
		deny("text before the block", renewal, around("Certificate Request:\n", ""), "pem-surplus"),
		deny("text on the line of the block", renewal, around("a", ""), "pem-surplus"),
		deny("a byte order mark", renewal, around("\uFEFF", ""), "pem-surplus"),
		deny("text after the block", renewal, around("", "text\n"), "pem-surplus"),
		deny("a NUL after the block", renewal, around("", "\x00"), "pem-surplus"),
		deny("a second block", renewal, text(func(p []byte) []byte { return slices.Concat(p, p) }), "pem-surplus"),
		deny("a second block before", renewal, text(func(p []byte) []byte {
			return slices.Concat(encode([]byte{0x30, 0}), p)
		}), "pem-surplus"),
		deny("a certificate beside", renewal, around("", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), "pem-surplus"),
		deny("stray DER after the block", renewal, around("", "\x30\x00"), "pem-surplus"),
		approve("blank lines around the block are no text", renewal, around("\n \n", "\r\n\n"), "node-renews"),
		approve("lines that end as on Windows", renewal, text(func(p []byte) []byte { return bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n")) }), "node-renews"),
		approve("no end of line at the end", renewal, text(bytes.TrimSpace), "node-renews"),
		deny("headers", renewal, header("Comment: a\n\n"), "pem-headers"),
		deny("headers without the empty line", renewal, header("Comment: a\n"), "pem-headers"),
		deny("an empty line first", renewal, header("\n"), "pem-malformed"),
		deny("an empty line within", renewal, text(func(p []byte) []byte { return bytes.Replace(p, []byte("\nM"), []byte("\nM\n\r\n"), 1) }), "pem-malformed"),
		deny("the type of Netscape", renewal, relabel("NEW CERTIFICATE REQUEST"), "pem-type"),
		deny("the type of a certificate", renewal, relabel("CERTIFICATE"), "pem-type"),
		deny("a type in small letters", renewal, relabel("certificate request"), "pem-type"),
		deny("a type with a blank", renewal, relabel("CERTIFICATE REQUEST "), "pem-type"),
		deny("another type at the end", renewal, text(func(p []byte) []byte {
			return bytes.Replace(p, []byte("END CERTIFICATE REQUEST"), []byte("END CERTIFICATE"), 1)
		}), "pem-malformed"),
		deny("no end", renewal, text(func(p []byte) []byte { return p[:len(p)-10] }), "pem-malformed"),
		deny("an end on the last line of the data", renewal, text(func(p []byte) []byte { return bytes.Replace(p, []byte("\n-----END"), []byte("-----END"), 1) }), "pem-malformed"),
		deny("all on one line", renewal, text(func(p []byte) []byte { return bytes.ReplaceAll(p, []byte("\n"), nil) }), "pem-type"),
		deny("a beginning alone", renewal, text(func([]byte) []byte { return []byte("-----BEGIN CERTIFICATE REQUEST-----") }), "pem-malformed"),
		deny("nothing in the block", renewal, text(func([]byte) []byte {
			return []byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n")
		}), "pem-malformed"),
		deny("a character that is not base64", renewal, text(func(p []byte) []byte { return bytes.Replace(p, []byte("\nM"), []byte("\n*"), 1) }), "pem-malformed"),
		deny("a blank in the base64", renewal, text(func(p []byte) []byte { return bytes.Replace(p, []byte("\nM"), []byte("\n M"), 1) }), "pem-malformed"),
		deny("base64 whose last bits are not zero", renewal, text(func([]byte) []byte {
			return []byte("-----BEGIN CERTIFICATE REQUEST-----\nMB==\n-----END CERTIFICATE REQUEST-----\n")
		}), "pem-malformed"),
		deny("a request of a megabyte", renewal, around("", strings.Repeat("\n", 1<<20)), "request-too-large"),
		deny("a thousand beginnings", renewal, text(func([]byte) []byte { return bytes.Repeat([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"), 1000) }), "pem-malformed"),
	}
}

func derRows() []row {
	shaped := func(f func(*shape)) func(*world) { return func(w *world) { f(&w.shape) } }
	san := func(value []byte) func(*world) {
		return func(w *world) { w.shape.names, w.shape.extensions = nil, []extension{{oidSAN, nil, value}} }
	}
	good := generalNames(dns("w1"))
	return []row{
		deny("DER that is cut short", renewal, func(w *world) { w.text = reDER(func(d []byte) []byte { return d[:len(d)-1] }) }, "der-malformed"),
		deny("DER of a certificate's form", renewal, func(w *world) { w.text = reDER(func([]byte) []byte { return []byte{0x30, 3, 2, 1, 0} }) }, "der-malformed"),
		deny("a length that is longer than it need be", renewal, func(w *world) {
			w.text = reDER(func(d []byte) []byte {
				return slices.Concat([]byte{0x30, 0x83, 0}, d[2:])
			})
		}, "der-malformed"),
		deny("a length that is open", renewal, func(w *world) {
			w.text = reDER(func(d []byte) []byte { return slices.Concat([]byte{0x30, 0x80}, d[3:], []byte{0, 0}) })
		}, "der-malformed"),
		deny("data after the request", renewal, shaped(func(s *shape) { s.afterRequest = []byte{0} }), "der-trailing-data"),
		deny("a second request after the request", renewal, shaped(func(s *shape) { s.afterRequest = []byte{0x30, 0} }), "der-trailing-data"),
		deny("data after the signature", renewal, shaped(func(s *shape) { s.afterSignature = []byte{5, 0} }), "der-trailing-data"),
		deny("data after the attributes", renewal, shaped(func(s *shape) { s.afterAttributes = []byte{5, 0} }), "der-trailing-data"),
		deny("parameters that ECDSA has not", renewal, shaped(func(s *shape) {
			s.algorithm = []byte{0x30, 14, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 4, 2, 1, 2}
		}), "der-malformed"),
		deny("parameters of RSA that are not NULL", renewal, func(w *world) {
			w.shape.key = keyRSA()
			w.shape.algorithm = []byte{0x30, 15, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 4, 2, 1, 2}
		}, "der-malformed"),
		deny("data after the parameters of the algorithm", renewal, shaped(func(s *shape) {
			s.algorithm = []byte{0x30, 14, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 5, 0, 5, 0}
		}), "der-malformed"),
		deny("a NULL with content", renewal, shaped(func(s *shape) {
			s.algorithm = []byte{0x30, 13, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 5, 1, 0}
		}), "der-malformed"),
		deny("data within the key", renewal, shaped(func(s *shape) {
			s.spki = marshalKey(s.key.Public())
			s.spki = append([]byte{0x30, s.spki[1] + 2}, append(s.spki[2:], 5, 0)...)
		}), "der-malformed"),
		deny("a key on a curve with parameters after it", renewal, shaped(func(s *shape) {
			s.spki = marshalKey(s.key.Public())
			s.spki = slices.Concat([]byte{0x30, s.spki[1] + 2, 0x30, s.spki[3] + 2}, s.spki[4:4+int(s.spki[3])], []byte{5, 0}, s.spki[4+int(s.spki[3]):])
		}), "der-malformed"),
		deny("another version", renewal, shaped(func(s *shape) { s.version = 1 }), "der-malformed"),
		deny("two lists of extensions", serving, shaped(func(s *shape) {
			s.attributes = []rawAttribute{{oidExtRq, extensions(extension{oidSAN, nil, good})}}
		}), "der-malformed"),
		deny("two lists of extensions in one attribute", serving, shaped(func(s *shape) {
			list := extensions(extension{oidSAN, nil, good})
			s.names, s.attributes = nil, []rawAttribute{{oidExtRq, slices.Concat(list, list)}}
		}), "der-malformed"),
		deny("two extensions of alternative names", serving, shaped(func(s *shape) { s.extensions = []extension{{oidSAN, nil, generalNames(dns("evil.test"))}} }), "der-malformed"),
		deny("a list of no extensions", renewal, shaped(func(s *shape) { s.attributes = []rawAttribute{{oidExtRq, []byte{0x30, 0}}} }), "der-malformed"),
		deny("an attribute without a value", renewal, shaped(func(s *shape) { s.attributes = []rawAttribute{{oidExtRq, nil}} }), "der-malformed"),
		deny("an extension that says that it is not critical", serving, shaped(func(s *shape) {
			s.names, s.extensions = nil, []extension{{oidSAN, []byte{1, 1, 0}, good}}
		}), "der-malformed"),
		deny("TRUE in another form", serving, shaped(func(s *shape) { s.names, s.extensions = nil, []extension{{oidSAN, []byte{1, 1, 1}, good}} }), "der-malformed"),
		approve("alternative names that are critical", serving, shaped(func(s *shape) { s.names, s.extensions = nil, []extension{{oidSAN, isTrue, good}} }), "node-serves"),
		deny("alternative names without a name", serving, san([]byte{0x30, 0}), "der-malformed"),
		deny("alternative names that are empty", serving, san(nil), "der-malformed"),
		deny("data after the alternative names", serving, san(append(bytes.Clone(good), 5, 0)), "der-malformed"),
		deny("an alternative name of no kind", serving, san(generalNames(dns("w1"), name{context(9), "x"})), "der-malformed"),
		deny("an alternative name of another class", serving, san(generalNames(dns("w1"), name{cbasn1.UTF8String, "x"})), "der-malformed"),
		deny("a DNS name in parts", serving, san(generalNames(name{context(2).Constructed(), "\x16\x02w1"})), "der-malformed"),
		deny("an address of five bytes", serving, san(generalNames(dns("w1"), name{context(7), "\xc0\x00\x02\x0b\x00"})), "der-malformed"),
		deny("an address with a mask", serving, san(generalNames(dns("w1"), name{context(7), "\xc0\x00\x02\x0b\xff\xff\xff\xff"})), "der-malformed"),
		deny("an address without bytes", serving, san(generalNames(dns("w1"), name{context(7), ""})), "der-malformed"),
		deny("an RDN without an attribute", renewal, shaped(func(s *shape) { s.subject = append(s.subject, nil) }), "der-malformed"),
	}
}

// reDER changes the DER within a PEM.
func reDER(f func([]byte) []byte) func([]byte) []byte {
	return func(p []byte) []byte { block, _ := pem.Decode(p); return encode(f(block.Bytes)) }
}

func keyRows() []row {
	with := func(key func() crypto.Signer) func(*world) { return func(w *world) { w.shape.key = key() } }
	spki := func(bits, exponent int) func(*world) {
		return func(w *world) { w.shape.key, w.shape.spki = keyRSA(), rsaSPKI(bits, exponent) }
	}
	return []row{
		approve("RSA of 2048 bits", renewal, with(keyRSA), "node-renews"),
		approve("P-384", renewal, with(keyP384), "node-renews"),
		approve("P-521", serving, with(keyP521), "node-serves"),
		approve("Ed25519", serving, with(keyEd25519), "node-serves"),
		deny("RSA of 1024 bits", renewal, with(keyRSA1024), "key-unfit"),
		deny("RSA of 2047 bits", renewal, spki(2047, 65537), "key-unfit"),
		deny("RSA of 8193 bits", renewal, spki(8193, 65537), "key-unfit"),
		deny("RSA of 16384 bits", serving, spki(16384, 65537), "key-unfit"),
		deny("RSA with the exponent 3", renewal, spki(2048, 3), "key-unfit"),
		deny("RSA with the exponent 65535", renewal, spki(2048, 65535), "key-unfit"),
		deny("P-224", renewal, with(keyP224), "key-unfit"),
		deny("a key of a kind that is not known", renewal, func(w *world) {
			// X25519, which cannot sign.
			w.shape.spki = slices.Concat([]byte{0x30, 0x2a}, algorithmIdentifier(false, 1, 3, 101, 110), []byte{3, 0x21, 0}, make([]byte, 32))
		}, "key-unfit"),
		deny("the key of another", renewal, func(w *world) {
			w.shape.spki = marshalKey(keyP384().Public())
		}, "signature-invalid"),
		deny("a signature that is changed", serving, func(w *world) { w.shape.corruptSignature = true }, "signature-invalid"),
		deny("SHA-1 with RSA", renewal, func(w *world) {
			w.shape.key, w.shape.hash, w.shape.algorithm = keyRSA(), crypto.SHA1, algorithmIdentifier(true, 1, 2, 840, 113549, 1, 1, 5)
		}, "signature-weak"),
		deny("SHA-1 with ECDSA", renewal, func(w *world) {
			w.shape.hash, w.shape.algorithm = crypto.SHA1, algorithmIdentifier(false, 1, 2, 840, 10045, 4, 1)
		}, "signature-weak"),
		deny("MD5 with RSA", renewal, func(w *world) {
			w.shape.key, w.shape.algorithm = keyRSA(), algorithmIdentifier(true, 1, 2, 840, 113549, 1, 1, 4)
		}, "signature-weak"),
		deny("an algorithm that is not known", renewal, func(w *world) { w.shape.algorithm = algorithmIdentifier(false, 1, 2, 3, 4) }, "signature-weak"),
		deny("the key of an authority", renewal, func(w *world) { w.usedBy(csr.OfAuthority) }, "key-of-authority"),
		deny("the key of another node", serving, func(w *world) { w.usedBy("system:node:w1", "system:node:w2") }, "key-reused"),
		deny("the key of another user, by a rule", ruled, func(w *world) { w.usedBy("bob") }, "key-reused"),
		approve("a key that the node itself has used", renewal, func(w *world) { w.usedBy("system:node:w1") }, "node-renews"),
		approve("a key that waits under a second token", bootstrap, func(w *world) { w.usedBy("system:node:w9") }, "node-bootstraps"),
	}
}

func subjectRows() []row {
	subject := func(rdns ...[]attribute) func(*world) { return func(w *world) { w.shape.subject = rdns } }
	cn := func(tag cbasn1.Tag, value string) []attribute { return []attribute{{oidCN, tag, value}} }
	o, good := text(oidO, "system:nodes"), text(oidCN, "system:node:w1")
	named := func(value string) func(*world) { return subject(o, cn(cbasn1.UTF8String, value)) }
	organized := func(all ...string) func(*world) {
		rdns := [][]attribute{good}
		for _, value := range all {
			rdns = append(rdns, text(oidO, value))
		}
		return subject(rdns...)
	}
	return []row{
		approve("UTF8String", renewal, subject([]attribute{{oidO, cbasn1.UTF8String, "system:nodes"}}, cn(cbasn1.UTF8String, "system:node:w1")), "node-renews"),
		approve("the other order", serving, subject(good, o), "node-serves"),
		deny("two common names, the requester's last", renewal, subject(o, text(oidCN, "system:node:w2"), good), "subject-common-name"),
		deny("two common names, the requester's first", serving, subject(o, good, text(oidCN, "system:node:w2")), "subject-common-name"),
		deny("one common name twice", renewal, subject(o, good, good), "subject-common-name"),
		deny("no common name", renewal, subject(o), "subject-common-name"),
		deny("no subject", renewal, subject(), "subject-organization", "subject-common-name"),
		deny("one RDN of both", renewal, subject(append(slices.Clone(o), good...)), "subject-malformed"),
		deny("one RDN of two common names", renewal, subject(o, append(slices.Clone(good), good...)), "subject-malformed", "subject-common-name"),
		deny("system:masters beside", renewal, organized("system:nodes", "system:masters"), "subject-organization"),
		deny("system:masters first", serving, organized("system:masters", "system:nodes"), "subject-organization"),
		deny("system:masters alone", renewal, organized("system:masters"), "subject-organization"),
		deny("system:nodes twice", renewal, organized("system:nodes", "system:nodes"), "subject-organization"),
		deny("no organization", renewal, organized(), "subject-organization"),
		deny("an organization in capitals", renewal, organized("System:Nodes"), "subject-organization"),
		deny("an organization with a blank", renewal, organized("system:nodes "), "subject-organization"),
		deny("a unit beside", renewal, subject(o, good, text(oidOU, "unit")), "subject-surplus"),
		deny("a serial number beside", serving, subject(o, good, text(asn1.ObjectIdentifier{2, 5, 4, 5}, "1")), "subject-surplus"),
		deny("an attribute that nobody knows", renewal, subject(o, good, text(asn1.ObjectIdentifier{2, 25, 1 << 30, 7}, "1")), "subject-surplus"),
		deny("T61String", renewal, subject(o, cn(cbasn1.T61String, "system:node:w1")), "subject-malformed"),
		deny("IA5String", renewal, subject(o, cn(cbasn1.IA5String, "system:node:w1")), "subject-malformed"),
		deny("BMPString", renewal, subject(o, cn(cbasn1.Tag(30), "\x00s\x00y")), "subject-malformed", "subject-common-name"),
		deny("an organization in T61String", renewal, subject([]attribute{{oidO, cbasn1.T61String, "system:nodes"}}, good), "subject-malformed"),
		deny("an octet string", renewal, subject(o, cn(cbasn1.OCTET_STRING, "system:node:w1")), "subject-malformed"),
		deny("a NUL in the name", renewal, named("system:node:w1\x00"), "subject-malformed", "subject-common-name"),
		deny("a name that is not UTF-8", renewal, named("system:node:w1\xff"), "der-malformed"),
		deny("a character that PrintableString has not", renewal, subject(o, cn(cbasn1.PrintableString, "system:node:w1*")), "subject-malformed", "subject-common-name"),
		deny("an empty name", renewal, named("system:node:"), "subject-common-name"),
		deny("no prefix", renewal, named("w1"), "subject-common-name"),
		deny("a prefix in capitals", renewal, named("System:node:w1"), "subject-common-name"),
		deny("a prefix within", renewal, named("a:system:node:w1"), "subject-common-name"),
		deny("a path", renewal, named("system:node:../x"), "subject-common-name"),
		deny("a letter of another script", renewal, named("system:node:wоrker"), "subject-common-name"),
		deny("a name in capitals", renewal, named("system:node:W1"), "subject-common-name"),
		deny("a dot at the end", renewal, named("system:node:w1."), "subject-common-name"),
		deny("a dot at the beginning", renewal, named("system:node:.w1"), "subject-common-name"),
		deny("a hyphen at the end", renewal, named("system:node:w1-"), "subject-common-name"),
		deny("an underscore", renewal, named("system:node:w_1"), "subject-common-name"),
		deny("a name of 254 characters", renewal, named("system:node:"+strings.Repeat("a", 254)), "subject-common-name"),
		deny("a blank at the end", renewal, named("system:node:w1 "), "subject-common-name"),
		deny("two prefixes", renewal, named("system:node:system:node:w1"), "subject-common-name"),
		approve("a name of 253 characters", bootstrap, named("system:node:"+strings.Repeat("a", 253)), "node-bootstraps"),
		approve("a name of several labels", bootstrap, named("system:node:ip-10-0-0-1.eu.compute.internal"), "node-bootstraps"),
	}
}

func requestedRows() []row {
	attribute := func(a rawAttribute) func(*world) { return func(w *world) { w.shape.attributes = []rawAttribute{a} } }
	asks := func(e extension) func(*world) { return func(w *world) { w.shape.extensions = []extension{e} } }
	names := func(n ...name) func(*world) { return func(w *world) { w.shape.names = n } }
	challenge := rawAttribute{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []byte("\x13\x06secret")}
	microsoft := rawAttribute{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}, extensions(extension{oidSAN, nil, generalNames(dns("evil.test"))})}
	return []row{
		deny("a challenge password", renewal, attribute(challenge), "attribute-surplus"),
		deny("a challenge password beside names", serving, attribute(challenge), "attribute-surplus"),
		deny("two challenge passwords", renewal, func(w *world) { w.shape.attributes = []rawAttribute{challenge, challenge} }, "der-malformed"),
		deny("extensions in Microsoft's attribute", renewal, attribute(microsoft), "attribute-surplus"),
		deny("CA:TRUE", renewal, asks(extension{asn1.ObjectIdentifier{2, 5, 29, 19}, isTrue, []byte{0x30, 3, 1, 1, 0xff}}), "extension-surplus"),
		deny("CA:FALSE", serving, asks(extension{asn1.ObjectIdentifier{2, 5, 29, 19}, nil, []byte{0x30, 0}}), "extension-surplus"),
		deny("a key usage", serving, asks(extension{asn1.ObjectIdentifier{2, 5, 29, 15}, isTrue, []byte{3, 2, 2, 4}}), "extension-surplus"),
		deny("an extension that nobody knows", serving, asks(extension{asn1.ObjectIdentifier{1, 2, 3, 4}, nil, []byte{5, 0}}), "extension-surplus"),
		deny("alternative names of the issuer", serving, asks(extension{asn1.ObjectIdentifier{2, 5, 29, 18}, nil, generalNames(dns("w1"))}), "extension-surplus"),
		deny("a DNS name in a client certificate", renewal, names(dns("w1")), "san-not-allowed"),
		deny("an address in a client certificate", bootstrap, names(ip("192.0.2.11")), "san-not-allowed"),
		deny("an e-mail address in a client certificate", renewal, names(name{context(1), "a@example.test"}), "san-not-allowed"),
		deny("a URI in a client certificate", renewal, names(name{context(6), "spiffe://a/b"}), "san-not-allowed"),
		deny("an otherName in a client certificate", renewal, names(otherName), "san-not-allowed"),
		deny("no names in a serving certificate", serving, names(), "san-missing"),
		deny("an e-mail address", serving, names(dns("w1"), name{context(1), "a@example.test"}), "san-kind"),
		deny("a URI", serving, names(dns("w1"), name{context(6), "spiffe://a/b"}), "san-kind"),
		deny("an otherName", serving, names(dns("w1"), otherName), "san-kind"),
		deny("an otherName alone", serving, names(otherName), "san-kind"),
		deny("a registered ID", serving, names(dns("w1"), name{context(8), "\x2a\x03"}), "san-kind"),
		deny("a directory name", serving, names(dns("w1"), name{context(4).Constructed(), "\x30\x00"}), "san-kind"),
		deny("an X.400 address", serving, names(dns("w1"), name{context(3).Constructed(), "\x30\x00"}), "san-kind"),
		deny("an EDI party", serving, names(dns("w1"), name{context(5).Constructed(), "\xa1\x03\x0c\x01a"}), "san-kind"),
	}
}

var otherName = name{context(0).Constructed(), "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x14\x02\x03\xa0\x04\x0c\x02ab"}

func usageRows() []row {
	usages := func(key func() crypto.Signer, all ...string) func(*world) {
		return func(w *world) { w.shape.key, w.request.Usages = key(), all }
	}
	const ds, ke, ca, sa = "digital signature", "key encipherment", "client auth", "server auth"
	old := func(key func() crypto.Signer, usage string) func(*world) {
		return func(w *world) {
			w.shape.key, w.request.Usages, w.policy.AllowKeyEnciphermentWithECDSA = key(), []string{ds, ke, usage}, true
		}
	}
	return []row{
		approve("key encipherment with RSA", renewal, usages(keyRSA, ds, ke, ca), "node-renews"),
		approve("key encipherment with RSA, to serve", serving, usages(keyRSA, ds, ke, sa), "node-serves"),
		approve("usages in another order", renewal, usages(keyRSA, ca, ke, ds), "node-renews"),
		deny("key encipherment with ECDSA", renewal, usages(keyP256, ds, ke, ca), "usage-key-encipherment"),
		deny("key encipherment with Ed25519", serving, usages(keyEd25519, ds, ke, sa), "usage-key-encipherment"),
		approve("key encipherment with ECDSA, switched on", renewal, old(keyP256, ca), "node-renews"),
		approve("key encipherment with ECDSA, switched on, to serve", serving, old(keyP384, sa), "node-serves"),
		deny("key encipherment with Ed25519, switched on for ECDSA", renewal, old(keyEd25519, ca), "usage-key-encipherment"),
		deny("no usages", renewal, usages(keyP256), "usages-wrong"),
		deny("client auth alone", renewal, usages(keyP256, ca), "usages-wrong"),
		deny("digital signature alone", serving, usages(keyP256, ds), "usages-wrong"),
		deny("server auth beside", renewal, usages(keyP256, ds, ca, sa), "usages-wrong"),
		deny("client auth beside", serving, usages(keyP256, ds, ca, sa), "usages-wrong"),
		deny("any", renewal, usages(keyP256, ds, ca, "any"), "usages-wrong"),
		deny("any instead", serving, usages(keyP256, ds, "any"), "usages-wrong"),
		deny("cert sign", renewal, usages(keyP256, ds, ca, "cert sign"), "usages-wrong"),
		deny("signing for digital signature", renewal, usages(keyP256, "signing", ca), "usages-wrong"),
		deny("one usage twice", renewal, usages(keyP256, ds, ca, ca), "usages-wrong"),
		deny("key encipherment twice", renewal, usages(keyRSA, ds, ke, ke, ca), "usages-wrong"),
		deny("a usage in capitals", renewal, usages(keyP256, ds, "Client Auth"), "usages-wrong"),
		deny("a usage with a blank", renewal, usages(keyP256, ds, "client auth "), "usages-wrong"),
	}
}

func requesterRows() []row {
	by := func(username string, groups ...string) func(*world) {
		return func(w *world) { w.request.Username, w.request.Groups = username, groups }
	}
	answered := func(a csr.Answer) func(*world) { return func(w *world) { w.facts.Authorized = a } }
	return []row{
		undecided("an authorised user outside of the bootstrap groups", bootstrap, by("alice", "system:authenticated"), "requester-not-bootstrapper"),
		undecided("a sub-group of system:bootstrappers alone", bootstrap, by("system:bootstrap:abcdef", "system:bootstrappers:kubeadm:default-node-token"), "requester-not-bootstrapper"),
		undecided("an account that the policy does not name", bootstrap, by("system:serviceaccount:machine-config:node-bootstrapper", "system:serviceaccounts:machine-config"), "requester-not-bootstrapper"),
		approve("an account whose group the policy names", bootstrap, func(w *world) {
			by("system:serviceaccount:machine-config:node-bootstrapper", "system:serviceaccounts:machine-config")(w)
			w.policy.BootstrapGroups = []string{"system:serviceaccounts:machine-config"}
		}, "node-bootstraps"),
		undecided("no bootstrap groups", bootstrap, func(w *world) { w.policy.BootstrapGroups = nil }, "requester-not-bootstrapper"),
		undecided("nobody", bootstrap, by(""), "requester-not-bootstrapper"),
		undecided("a node's name without its group", renewal, by("system:node:w1", "system:authenticated"), "requester-not-bootstrapper"),
		deny("a node that asks for another", renewal, by("system:node:w2", "system:nodes"), "requester-other-node"),
		deny("a node whose name begins alike", renewal, by("system:node:w", "system:nodes"), "requester-other-node"),
		deny("a node that is a bootstrapper and asks for another", renewal, by("system:node:w2", "system:nodes", "system:bootstrappers"), "requester-other-node"),
		deny("a bootstrapper that is in the nodes' group", bootstrap, by("system:bootstrap:abcdef", "system:nodes", "system:bootstrappers"), "requester-other-node"),
		deny("a bootstrapper that has a node's name", bootstrap, by("system:node:w2", "system:bootstrappers"), "requester-other-node"),
		approve("a node that is a bootstrapper and asks for itself", renewal, by("system:node:w1", "system:nodes", "system:bootstrappers"), "node-renews"),
		undecided("no permission", renewal, answered(csr.No), "requester-not-authorized"),
		undecided("a bootstrapper without permission", bootstrap, answered(csr.No), "requester-not-authorized"),
		undecided("a permission that is not known", bootstrap, answered(csr.Unknown), "authorization-unknown"),
		approve("a permission does not matter to serve", serving, answered(csr.Unknown), "node-serves"),
		deny("a bootstrapper that asks to serve", serving, by("system:bootstrap:abcdef", "system:bootstrappers"), "requester-not-node"),
		deny("an administrator that asks to serve", serving, by("kubernetes-admin", "system:masters"), "requester-not-node"),
		deny("a node that asks to serve as another", serving, by("system:node:w2", "system:nodes"), "requester-not-node"),
		deny("a node's name without its group that asks to serve", serving, by("system:node:w1", "system:authenticated"), "requester-not-node"),
		deny("a name in capitals that asks to serve", serving, by("system:node:W1", "system:nodes"), "requester-not-node"),
		deny("a node that asks for another, permission not known", renewal, func(w *world) {
			by("system:node:w2", "system:nodes")(w)
			w.facts.Authorized, w.noNodes = csr.Unknown, true
		}, "requester-other-node"),
	}
}

func nodeRows() []row {
	unknown := func(w *world) { w.noNodes = true }
	remove := func(names ...string) func(*world) {
		return func(w *world) {
			w.nodes = slices.DeleteFunc(w.nodes, func(n csr.Node) bool { return slices.Contains(names, n.Name) })
		}
	}
	rejoin := func(change func(*csr.Node)) func(*world) {
		return func(w *world) { w.shape.subject = subjectOf("w1"); change(w.node("w1")) }
	}
	return []row{
		undecided("nodes that are not known, to serve", serving, unknown, "nodes-unknown"),
		undecided("nodes that are not known, to bootstrap", bootstrap, unknown, "nodes-unknown"),
		undecided("nodes that are not known, to renew", renewal, unknown, "nodes-unknown"),
		undecided("a node that is not registered", serving, remove("w1"), "node-not-registered"),
		approve("a renewal before the node is registered", renewal, remove("w1"), "node-renews"),
		undecided("a node that is being deleted", serving, func(w *world) { w.node("w1").Deleting = true }, "node-deleting"),
		undecided("a renewal of a node that is being deleted", renewal, func(w *world) { w.node("w1").Deleting = true }, "node-deleting"),
		undecided("a bootstrap of a node that is being deleted", bootstrap, rejoin(func(n *csr.Node) { n.Ready, n.Deleting = false, true }), "node-deleting"),
		undecided("a node without addresses", serving, func(w *world) { w.node("w1").Names, w.node("w1").Addresses = nil, nil }, "node-without-addresses"),
		undecided("a node whose addresses say nothing", serving, func(w *world) { w.node("w1").Names, w.node("w1").Addresses = []string{""}, []string{"", "none"} }, "node-without-addresses"),
		undecided("a bootstrapper that asks for a Ready node", bootstrap, rejoin(func(*csr.Node) {}), "node-ready"),
		approve("a bootstrapper that asks for a node that is not Ready", bootstrap, rejoin(func(n *csr.Node) { n.Ready = false }), "node-bootstraps"),
		approve("a bootstrapper that asks for a Ready node, switched on", bootstrap, func(w *world) {
			rejoin(func(*csr.Node) {})(w)
			w.policy.AllowReadyNodeRejoin = true
		}, "node-bootstraps"),
		deny("a bad signature for a node that is not registered", serving, func(w *world) { remove("w1")(w); w.shape.corruptSignature = true }, "signature-invalid"),
		deny("a name of the cluster for a node that is not registered", serving, func(w *world) {
			remove("w1")(w)
			w.shape.names = append(w.shape.names, dns("kubernetes.default.svc"))
		}, "san-in-cluster"),
		deny("a wildcard where nodes are not known", serving, func(w *world) { unknown(w); w.shape.names = []name{dns("*")} }, "san-wildcard"),
		deny("an address that a deleted node does not list", serving, func(w *world) {
			w.node("w1").Deleting = true
			w.shape.names = []name{ip("203.0.113.1")}
		}, "san-not-listed"),
	}
}

func nameFormRows() []row {
	asks := func(value string) func(*world) {
		return func(w *world) {
			// The node lists it too: its own word does not help.
			w.shape.names = []name{dns("w1"), dns(value)}
			w.node("w1").Names = append(w.node("w1").Names, value)
		}
	}
	var all []row
	for _, v := range []string{"*", "*.example.test", "w1.*.test", "w*", "*.cluster.local"} {
		all = append(all, deny("the wildcard "+v, serving, asks(v), "san-wildcard"))
	}
	for _, v := range []string{"192.0.2.11", "2001:db8::11", "::ffff:192.0.2.11", "fe80::1%eth0", "[2001:db8::11]", "127.1", "0x7f.1",
		"0x7f000001", "2130706433", "010.0.0.1", "192.0.2.011", "0300.0.2.013", "0X7F.0.0.1"} {
		all = append(all, deny("the address as text "+v, serving, asks(v), "san-address-as-text"))
	}
	for _, v := range []string{"", ".", "w1.", "w1.example.test.", ".w1", "w1..test", "a b", " w1", "w1 ", "w1\x00.evil.test", "w1\n", "-w1",
		"w1-", "w1.-a", "w_1", "w1/x", "w1:10250", "w1,w2", "a@b", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a", "kubernetes.default.svc."} {
		all = append(all, deny("the name "+quoted(v), serving, asks(v), "san-name-invalid"))
	}
	for _, v := range []string{"bücher.test", "wоrker", "w1\xff", "\u212A8s"} { // crypto/x509 refuses what is not IA5
		all = append(all, deny("the name "+quoted(v), serving, asks(v), "der-malformed"))
	}
	for _, v := range []string{"node-10", "10-0-0-1", "1a", "xn--bcher-kva.test", "W1.Example.TEST", strings.Repeat("a", 63), "a.1b", "0xg", "face.b00c"} {
		all = append(all, approve("the name "+v, serving, asks(v), "node-serves"))
	}
	return all
}

func quoted(s string) string {
	if len(s) > 20 {
		s = s[:20] + "…"
	}
	return strings.Trim(strings.NewReplacer("\x00", "NUL", "\n", "LF", "\xff", "FF").Replace(s), "/")
}

func inClusterRows() []row {
	named := func(value string) func(*world) {
		return func(w *world) {
			w.shape.names = []name{dns("w1"), dns(value)}
			w.node("w1").Names = append(w.node("w1").Names, value)
		}
	}
	addressed := func(value string) func(*world) {
		return func(w *world) {
			w.shape.names = []name{dns("w1"), ip(value)}
			w.node("w1").Addresses = append(w.node("w1").Addresses, value)
		}
	}
	var all []row
	for _, v := range []string{"kubernetes", "Kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"kubernetes.default.svc.corp.test", "svc", "web.default.svc", "WEB.default.SVC", "cluster.local", "a.cluster.local", "a.Cluster.Local",
		"10-0-0-1.default.pod.cluster.local", "localhost", "LOCALHOST", "localhost.localdomain", "localhost4", "localhost6.localdomain6",
		"ip6-localhost", "ip6-loopback", "a.localhost", "localhost.example.test"} {
		all = append(all, deny("the name "+v, serving, named(v), "san-in-cluster"))
	}
	for _, v := range []string{"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1",
		"10.96.0.1", "::ffff:10.96.0.1", "10.111.255.255"} {
		all = append(all, deny("the address "+v, serving, addressed(v), "san-in-cluster"))
	}
	for _, v := range []string{"10.95.255.255", "10.112.0.0", "fd00::1"} {
		all = append(all, approve("the address "+v, serving, addressed(v), "node-serves"))
	}
	for _, v := range []string{"svc.example.test", "mysvc", "kubernetes.example.test", "kubernetes-1", "notcluster.local", "local", "my-localhost"} {
		all = append(all, approve("the name "+v, serving, named(v), "node-serves"))
	}
	domain := func(value string, change func(*world)) func(*world) {
		return func(w *world) { change(w); w.facts.Cluster.Domain = value }
	}
	ranges := func(change func(*world)) func(*world) {
		return func(w *world) {
			change(w)
			w.facts.Cluster.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16"), netip.MustParsePrefix("fd01::/108")}
		}
	}
	return append(all,
		deny("another cluster domain", serving, domain("K8s.Test.", named("web.default.svc.k8s.test")), "san-in-cluster"),
		approve("cluster.local where the domain is another", serving, domain("k8s.test", named("a.cluster.local")), "node-serves"),
		deny("another service range", serving, ranges(addressed("172.20.0.10")), "san-in-cluster"),
		deny("another service range, IPv6", serving, ranges(addressed("fd01::a")), "san-in-cluster"),
		approve("10.96.0.1 where the service range is another", serving, ranges(addressed("10.96.0.1")), "node-serves"),
		deny("the service range of the policy", serving, func(w *world) {
			addressed("172.21.0.10")(w)
			w.policy.Cluster.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("172.21.0.0/16")}
		}, "san-in-cluster"),
		deny("the service range of the cluster beside that of the policy", serving, func(w *world) {
			ranges(addressed("172.20.0.10"))(w)
			w.policy.Cluster.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("172.21.0.0/16")}
		}, "san-in-cluster"),
		deny("an IPv4-compatible form of loopback", serving, addressed("::127.0.0.1"), "san-in-cluster"),
		deny("a service address behind NAT64", serving, addressed("64:ff9b::a60:1"), "san-in-cluster"),
		approve("an address behind NAT64", serving, addressed("64:ff9b::c000:20b"), "node-serves"),
		deny("the broadcast address", serving, addressed("255.255.255.255"), "san-in-cluster"),
		deny("a name of all nodes of a network", serving, named("ip6-allnodes"), "san-in-cluster"),
		deny("an endpoint of the policy beside that of the cluster", serving, func(w *world) {
			addressed("192.0.2.101")(w)
			w.policy.Cluster.Endpoints = []string{"[2001:db8::100]:6443", "192.0.2.101"}
		}, "san-control-plane"),
		deny("an endpoint of IPv6 with a port", serving, func(w *world) {
			addressed("2001:db8::100")(w)
			w.policy.Cluster.Endpoints = []string{"[2001:db8::100]:6443", "192.0.2.101"}
		}, "san-control-plane"),
		deny("the domain of the cluster beside that of the policy", serving, func(w *world) {
			domain("k8s.test", named("a.k8s.test"))(w)
			w.policy.Cluster.Domain = "corp.test"
		}, "san-in-cluster"),
		deny("the domain of the policy", serving, func(w *world) {
			domain("k8s.test", named("a.corp.test"))(w)
			w.policy.Cluster.Domain = "corp.test"
		}, "san-in-cluster"),
		deny("a control-plane node and a name of the cluster", serving, func(w *world) {
			*w = *servingAs("cp1", dns("cp1"), dns("kubernetes"))
			w.node("cp1").Names = append(w.node("cp1").Names, "kubernetes")
		}, "san-in-cluster"),
	)
}

func ownerRows() []row {
	asks := func(names ...name) func(*world) { return func(w *world) { w.shape.names = names } }
	lists := func(node, value string) func(*world) {
		return func(w *world) { w.node(node).Names = append(w.node(node).Names, value) }
	}
	both := func(changes ...func(*world)) func(*world) {
		return func(w *world) {
			for _, c := range changes {
				c(w)
			}
		}
	}
	early := func(w *world) { w.facts.Landed = false }
	as := func(node string, names ...name) func(*world) {
		return func(w *world) { *w = *servingAs(node, names...) }
	}
	return []row{
		approve("names in other letters", serving, asks(dns("W1"), dns("w1.EXAMPLE.test")), "node-serves"),
		approve("an address in the form of IPv6", serving, asks(name{context(7), "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x0b"}), "node-serves"),
		approve("an address that the node writes at length", serving, both(lists("w1", "2001:DB8:0:0::12"), asks(ip("2001:db8::12"))), "node-serves"),
		approve("an address that the node writes as IPv6", serving, both(lists("w1", "::ffff:192.0.2.14"), asks(ip("192.0.2.14"))), "node-serves"),
		approve("a host name that is an address", serving, both(lists("w1", "192.0.2.13"), asks(ip("192.0.2.13"))), "node-serves"),
		approve("one name twice", serving, asks(dns("w1"), dns("w1")), "node-serves"),
		deny("an address that nobody lists", serving, asks(dns("w1"), ip("203.0.113.9")), "san-not-listed"),
		deny("a name that nobody lists", serving, asks(dns("w1"), dns("git.example.test")), "san-not-listed"),
		undecided("an address that nobody lists, early", serving, both(early, asks(ip("203.0.113.9"))), "san-not-listed"),
		deny("an address of another node", serving, asks(dns("w1"), ip("192.0.2.12")), "san-of-another-node"),
		deny("a name of another node", serving, asks(dns("w1"), dns("W2")), "san-of-another-node"),
		undecided("an address of another node, early", serving, both(early, asks(ip("192.0.2.12"))), "san-of-another-node"),
		undecided("an address that two nodes list", serving, both(lists("w2", "192.0.2.11"), asks(ip("192.0.2.11"))), "san-shared"),
		undecided("an address that two nodes list, asked by the other", serving, both(as("w2", ip("192.0.2.11")), lists("w2", "192.0.2.11")), "san-shared"),
		undecided("a name that two nodes list in other letters", serving, lists("w2", "W1"), "san-shared"),
		approve("an address that two nodes list, which is not asked for", serving, both(lists("w2", "192.0.2.11"), asks(dns("w1"))), "node-serves"),
		undecided("the name of another Node that lists none", serving, both(func(w *world) { w.node("w2").Names = nil }, lists("w1", "w2"), asks(dns("w2"))), "san-shared"),
		deny("two nodes list an address, and a wildcard", serving, both(lists("w2", "192.0.2.11"), asks(ip("192.0.2.11"), dns("*"))), "san-wildcard"),
		deny("a control-plane node's address", serving, asks(dns("w1"), ip("192.0.2.2")), "san-control-plane"),
		deny("a control-plane node's address that the node lists", serving, both(lists("w1", "192.0.2.2"), asks(ip("192.0.2.2"))), "san-control-plane"),
		deny("a control-plane node's name that the node lists", serving, both(lists("w1", "CP2"), asks(dns("cp2"))), "san-control-plane"),
		deny("a control-plane Node's name that it does not list", serving, both(func(w *world) { w.node("cp2").Names = nil }, lists("w1", "cp2"), asks(dns("cp2"))), "san-control-plane"),
		undecided("a control-plane node's address, early", serving, both(early, lists("w1", "192.0.2.2"), asks(ip("192.0.2.2"))), "san-control-plane"),
		deny("an endpoint", serving, both(lists("w1", "192.0.2.100"), asks(ip("192.0.2.100"))), "san-control-plane"),
		deny("the endpoint's name in other letters", serving, both(lists("w1", "API.example.test"), asks(dns("API.example.test"))), "san-control-plane"),
		undecided("an endpoint for a node that is not registered, which may become a control plane", serving,
			func(w *world) { *w = *servingAs("w9", ip("192.0.2.100")) }, "node-not-registered", "san-control-plane"),
		approve("a control-plane node's own address, which is an endpoint", serving, as("cp1", dns("cp1"), ip("192.0.2.1")), "node-serves"),
		approve("a control-plane node that lists the endpoint", serving, both(as("cp2", ip("192.0.2.100")), lists("cp2", "192.0.2.100")), "node-serves"),
		deny("a control-plane node and an endpoint that it does not list", serving, as("cp2", ip("192.0.2.100")), "san-control-plane"),
		deny("a control-plane node and another's address", serving, as("cp2", ip("192.0.2.1")), "san-control-plane"),
		undecided("an address that two control-plane nodes list", serving, both(as("cp2", ip("192.0.2.1")), lists("cp2", "192.0.2.1")), "san-shared"),
		undecided("a control-plane node's address that a worker lists too", serving, both(as("cp2", ip("192.0.2.2")), lists("w1", "192.0.2.2")), "san-shared"),
		deny("many bad names have one reason each", serving, asks(dns("a"), dns("b"), dns("c"), ip("203.0.113.9"), dns("*"), dns("*.a")), "san-not-listed", "san-wildcard"),
	}
}

func confirmRows() []row {
	also := func(value string) func(*world) {
		return func(w *world) {
			w.node("w1").Names = append(w.node("w1").Names, value)
			if a, err := netip.ParseAddr(value); err == nil {
				w.shape.names = append(w.shape.names, ip(a.String()))
				return
			}
			w.shape.names = append(w.shape.names, dns(value))
		}
	}
	only := func(set func(*csr.Policy), change func(*world)) func(*world) {
		return func(w *world) { *w = *serving(); set(&w.policy); change(w) }
	}
	ranges := func(p *csr.Policy) { p.AddressRanges = confirmed().policy.AddressRanges }
	inventory := func(p *csr.Policy) { p.Addresses = confirmed().policy.Addresses }
	return []row{
		approve("names are not asked of ranges", serving, only(ranges, also("b.test")), "node-serves"),
		deny("an address outside of the ranges", serving, only(ranges, also("203.0.113.9")), "san-outside-ranges"),
		deny("an address outside of the ranges, node not registered", serving, only(ranges, func(w *world) { *w = worldWith(servingAs("w9", ip("203.0.113.9")), ranges) }), "san-outside-ranges"),
		deny("an address outside of the ranges, early", serving, only(ranges, func(w *world) { w.shape.names = []name{ip("203.0.113.9")}; w.facts.Landed = false }), "san-outside-ranges"),
		deny("an address that the inventory has not", serving, only(inventory, also("203.0.113.9")), "san-not-in-inventory"),
		deny("a name that the inventory has not", serving, only(inventory, also("b.test")), "san-not-in-inventory"),
		undecided("a node that the inventory has not", serving, only(func(p *csr.Policy) { p.Addresses = map[string][]string{"w2": {"w1"}} }, nothing), "inventory-without-node"),
		undecided("an empty inventory", serving, only(func(p *csr.Policy) { p.Addresses = map[string][]string{} }, nothing), "inventory-without-node"),
		deny("a node that the inventory has without addresses", serving, only(func(p *csr.Policy) { p.Addresses = map[string][]string{"w1": nil} }, nothing), "san-not-in-inventory"),
		undecided("DNS that has not been asked", confirmed, func(w *world) { w.facts.Resolved = nil }, "dns-unknown"),
		undecided("DNS that does not know the node", confirmed, func(w *world) { w.facts.Resolved["w1"] = nil }, "dns-unknown"),
		undecided("DNS that does not know a name", confirmed, func(w *world) { delete(w.facts.Resolved, "w1.example.test") }, "dns-unknown"),
		deny("DNS that gives the node another address", confirmed, func(w *world) {
			w.facts.Resolved["w1"] = []netip.Addr{netip.MustParseAddr("192.0.2.12"), netip.MustParseAddr("2001:db8::11")}
		}, "san-not-in-dns"),
		deny("a name that resolves to another", confirmed, func(w *world) {
			w.facts.Resolved["w1.example.test"] = []netip.Addr{netip.MustParseAddr("192.0.2.12")}
		}, "san-not-in-dns"),
		deny("a name that resolves to another too", confirmed, func(w *world) {
			w.facts.Resolved["w1.example.test"] = []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")}
		}, "san-not-in-dns"),
		approve("DNS that answers with IPv4 in IPv6", confirmed, func(w *world) {
			w.facts.Resolved["w1"][0] = netip.MustParseAddr("::ffff:192.0.2.11")
		}, "node-serves"),
	}
}

func worldWith(w *world, set func(*csr.Policy)) world { set(&w.policy); return *w }

func ruleRows() []row {
	rules := func(all ...csr.Rule) func(*world) { return func(w *world) { w.policy.Rules = all } }
	subject := func(rdns ...[]attribute) func(*world) { return func(w *world) { w.shape.subject = rdns } }
	asks := func(oid asn1.ObjectIdentifier, value ...byte) func(*world) {
		return func(w *world) { w.shape.extensions = []extension{{oid, nil, value}} }
	}
	names := func(n ...name) func(*world) { return func(w *world) { w.shape.names = n } }
	usages := func(all ...string) func(*world) { return func(w *world) { w.request.Usages = all } }
	under := func(signer string) func(*world) {
		return func(w *world) { w.request.SignerName, w.policy.Rules[0].SignerName = signer, signer }
	}
	both := func(changes ...func(*world)) func(*world) {
		return func(w *world) {
			for _, c := range changes {
				c(w)
			}
		}
	}
	masters := subject(text(oidCN, "alice"), text(oidO, "system:masters"))
	cn := text(oidCN, "alice")
	keyUsage, extKeyUsage := asn1.ObjectIdentifier{2, 5, 29, 15}, asn1.ObjectIdentifier{2, 5, 29, 37}
	return []row{
		undecided("a rule that does not approve", ruled, rules(ruleThat(false, "")), "rule-not-satisfied"),
		undecided("a rule that fails", ruled, rules(ruleThat(false, "no such key")), "rule-failed", "rule-not-satisfied"),
		undecided("a rule that fails and would approve", ruled, rules(ruleThat(true, "no such key")), "rule-failed", "rule-not-satisfied"),
		approve("a second rule that approves", ruled, rules(ruleThat(false, "no such key"), ruleThat(true, "")), "rule-approves"),
		undecided("a rule for another signer", ruled, func(w *world) { w.policy.Rules[0].SignerName = "example.com/other" }, "signer-without-rule"),
		approve("a rule for a signer of others", ruled, under("example.com/other"), "rule-approves"),
		deny("a bad request for a signer that a rule is for", ruled, both(under("example.com/other"), func(w *world) { w.text = junk }), "pem-malformed"),
		deny("a weak key that a rule would approve", ruled, func(w *world) { w.shape.key = keyRSA1024() }, "key-unfit"),
		deny("a bad signature that a rule would approve", ruled, func(w *world) { w.shape.corruptSignature = true }, "signature-invalid"),
		deny("a short life that a rule would approve", ruled, func(w *world) { w.request.ExpirationSeconds = seconds(599) }, "expiration-too-short"),
		deny("a rule for kubelets' clients counts for nothing", ruled, both(under(csr.KubeAPIServerClientKubeletSigner)), "subject-surplus", "subject-organization", "subject-common-name"),
		deny("a rule for kubelets' servers counts for nothing", serving, func(w *world) {
			w.request.Username = "alice"
			r := ruleThat(true, "")
			r.SignerName = csr.KubeletServingSigner
			w.policy.Rules = []csr.Rule{r}
		}, "requester-not-node"),
		undecided("system:masters", ruled, masters, "identity-reserved"),
		undecided("system:masters of the legacy signer", ruled, both(under(csr.LegacyUnknownSigner), masters), "identity-reserved"),
		approve("system:masters, switched on", ruled, both(masters, func(w *world) { w.policy.AllowSystemIdentities = true }), "rule-approves"),
		approve("system:masters of a signer of others", ruled, both(under("example.com/other"), masters), "rule-approves"),
		undecided("a node by the signer of users", ruled, subject(text(oidO, "system:nodes"), text(oidCN, "system:node:w1")), "identity-reserved"),
		undecided("two common names", ruled, subject(cn, cn), "rule-cannot-see"),
		undecided("an RDN of two attributes", ruled, subject(append(slices.Clone(cn), text(oidO, "dev")...)), "rule-cannot-see"),
		undecided("an attribute that a rule cannot see", ruled, subject(cn, text(asn1.ObjectIdentifier{2, 5, 4, 6}, "DE")), "rule-cannot-see"),
		undecided("a name in T61String", ruled, subject([]attribute{{oidCN, cbasn1.T61String, "alice"}}), "rule-cannot-see"),
		undecided("a name with a mark that turns the direction", ruled, subject([]attribute{{oidCN, cbasn1.UTF8String, "alice\u202E"}}), "rule-cannot-see"),
		undecided("a challenge password by a rule", ruled, func(w *world) {
			w.shape.attributes = []rawAttribute{{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []byte("\x13\x01a")}}
		}, "rule-cannot-see"),
		undecided("CA:TRUE by a rule", ruled, asks(asn1.ObjectIdentifier{2, 5, 29, 19}, 0x30, 3, 1, 1, 0xff), "rule-cannot-see"),
		approve("CA:FALSE by a rule", ruled, asks(asn1.ObjectIdentifier{2, 5, 29, 19}, 0x30, 0), "rule-approves"),
		undecided("the right to sign in the key usage", ruled, asks(keyUsage, 3, 2, 2, 4), "rule-cannot-see"),
		undecided("decipher only in the key usage", ruled, asks(keyUsage, 3, 3, 7, 0, 0x80), "rule-cannot-see"),
		approve("digital signature in the key usage", ruled, asks(keyUsage, 3, 2, 5, 0xa0), "rule-approves"),
		approve("client auth in the extended key usage", ruled, asks(extKeyUsage, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2), "rule-approves"),
		undecided("server auth in the extended key usage, which is not asked for", ruled, asks(extKeyUsage, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1), "rule-cannot-see"),
		undecided("any usage in the extended key usage", ruled, asks(extKeyUsage, 0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0), "rule-cannot-see"),
		undecided("an extension that a rule cannot see", ruled, asks(asn1.ObjectIdentifier{1, 2, 3, 4}, 5, 0), "rule-cannot-see"),
		approve("a subject key identifier", ruled, asks(asn1.ObjectIdentifier{2, 5, 29, 14}, 4, 1, 7), "rule-approves"),
		approve("names that a rule can see", ruled, names(dns("a.test"), ip("203.0.113.1"), name{context(1), "a@example.test"}, name{context(6), "spiffe://a/b"}), "rule-approves"),
		undecided("an otherName by a rule", ruled, names(dns("a.test"), otherName), "rule-cannot-see"),
		undecided("a NUL by a rule", ruled, names(dns("a.test\x00.evil")), "rule-cannot-see"),
		approve("key encipherment by a rule", ruled, usages("key encipherment", "client auth"), "rule-approves"),
		undecided("no usages by a rule", ruled, usages(), "rule-usages"),
		undecided("server auth of the signer of users", ruled, usages("client auth", "server auth"), "rule-usages"),
		undecided("no client auth of the signer of users", ruled, usages("digital signature"), "rule-usages"),
		approve("server auth of a signer of others", ruled, both(under("example.com/other"), usages("server auth")), "rule-approves"),
		undecided("cert sign of the legacy signer", ruled, both(under(csr.LegacyUnknownSigner), usages("client auth", "cert sign")), "rule-usages"),
		undecided("crl sign of a signer of others", ruled, both(under("example.com/other"), usages("crl sign")), "rule-usages"),
		undecided("any of a signer of others", ruled, both(under("example.com/other"), usages("any")), "rule-usages"),
	}
}
