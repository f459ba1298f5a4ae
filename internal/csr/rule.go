package csr

import (
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// rules returns the rules for a signer. None can be for a kubelet's signers.
func (p Policy) rules(signer string) []Rule {
	if signer == KubeAPIServerClientKubeletSigner || signer == KubeletServingSigner {
		return nil
	}
	var rules []Rule
	for _, r := range p.Rules {
		if r.SignerName == signer {
			rules = append(rules, r)
		}
	}
	return rules
}

func (j *judgement) judgeByRules(r Request, f *form, p Policy, rules []Rule) {
	if len(rules) == 0 {
		j.doubt(signerNoRule, "no rule of the policy is for signer %s", quote(r.SignerName))
		return
	}
	j.judgeSight(r, f)
	j.judgeRuleUsages(r)
	j.judgeIdentity(r.SignerName, f.asked, p)
	if len(j.denied)+len(j.undecided) > 0 {
		return
	}
	for _, rule := range rules {
		ok, err := rule.Approve(r, f.asked)
		switch {
		case err != nil:
			j.doubt(ruleFailed, "rule %s could not be evaluated: %v", quote(rule.Name), err)
		case ok:
			j.undecided = nil
			j.approve(ruleApproves, "rule %s approves", quote(rule.Name))
			return
		}
	}
	j.doubt(ruleNot, "no rule of signer %s approves", quote(r.SignerName))
}

// judgeSight leaves undecided what [Asked] does not show: a rule that does not
// speak of a thing must not approve it.
func (j *judgement) judgeSight(r Request, f *form) {
	shown := []string{oidCommonName, oidOrganization, oidOrganizationalUnit}
	commonNames := 0
	for _, rdn := range f.raw.subject {
		for _, a := range rdn {
			if a.oid == oidCommonName {
				commonNames++
			}
			if len(rdn) != 1 || !slices.Contains(shown, a.oid) || !a.isText() {
				j.doubt(ruleCannotSee, "the subject has an attribute %s that is unknown, not plain text, or not alone in its RDN", a.oid)
			}
		}
	}
	if commonNames > 1 {
		j.doubt(ruleCannotSee, "the subject has %d common names", commonNames)
	}
	for _, oid := range f.raw.attributes {
		j.doubt(ruleCannotSee, "the request has the attribute %s", oid)
	}
	for _, e := range f.raw.extensions {
		if e.oid != oidSubjectAltName && !isHarmless(e, r.Usages) {
			j.doubt(ruleCannotSee, "the request asks for the extension %s", e.oid)
		}
	}
	for _, n := range f.raw.names {
		switch n.kind {
		case dnsName, emailName, uriName:
			if strings.ContainsFunc(n.value, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
				j.doubt(ruleCannotSee, "an alternative name is not plain text")
			}
		case ipName:
		default:
			j.doubt(ruleCannotSee, "an alternative name is of kind %s", nameKinds[n.kind].name)
		}
	}
}

// extendedUsages are the usages of the API by their object identifier in
// extendedKeyUsage (RFC 5280 section 4.2.1.12).
var extendedUsages = map[string]string{
	"1.3.6.1.5.5.7.3.1": "server auth",
	"1.3.6.1.5.5.7.3.2": "client auth",
	"1.3.6.1.5.5.7.3.3": "code signing",
	"1.3.6.1.5.5.7.3.4": "email protection",
	"1.3.6.1.5.5.7.3.8": "timestamping",
	"1.3.6.1.5.5.7.3.9": "ocsp signing",
}

// isHarmless tells whether an extension asks for no more than the usages of the
// request do; openssl and others put such extensions into each request.
func isHarmless(e extension, usages []string) bool {
	s := cryptobyte.String(e.value)
	switch e.oid {
	case "2.5.29.14": // subjectKeyIdentifier
		return true
	case "2.5.29.19": // basicConstraints: an empty sequence is CA:FALSE
		return slices.Equal(e.value, []byte{0x30, 0})
	case "2.5.29.15": // keyUsage: digitalSignature and keyEncipherment at most
		var bits []byte
		return s.ReadASN1((*cryptobyte.String)(&bits), asn1.BIT_STRING) && s.Empty() && len(bits) == 2 && bits[1]&^0xa0 == 0
	case "2.5.29.37":
		var list cryptobyte.String
		if !s.ReadASN1(&list, asn1.SEQUENCE) || !s.Empty() {
			return false
		}
		for !list.Empty() {
			var oid string
			if !readOID(&list, &oid) || extendedUsages[oid] == "" || !slices.Contains(usages, extendedUsages[oid]) {
				return false
			}
		}
		return true
	}
	return false
}

// judgeRuleUsages leaves to people what makes an authority of its holder, and
// what the built-in signer would refuse (validAPIServerClientUsages in k/k
// pkg/controller/certificates/signer/signer.go).
func (j *judgement) judgeRuleUsages(r Request) {
	if len(r.Usages) == 0 {
		j.doubt(ruleUsages, "the request has no usages")
	}
	for _, u := range r.Usages {
		switch u {
		case "cert sign", "crl sign", "any":
			j.doubt(ruleUsages, "no rule may approve usage %q", u)
		case "digital signature", "key encipherment", "client auth":
		default:
			if r.SignerName == KubeAPIServerClientSigner {
				j.doubt(ruleUsages, "usage %s is not one of signer %q", quote(u), r.SignerName)
			}
		}
	}
	if r.SignerName == KubeAPIServerClientSigner && !slices.Contains(r.Usages, "client auth") {
		j.doubt(ruleUsages, "usage %q is missing", "client auth")
	}
}

// judgeIdentity keeps rules from giving away the cluster: the API server takes
// the common name for the user and organizations for groups.
func (j *judgement) judgeIdentity(signer string, a *Asked, p Policy) {
	if p.AllowSystemIdentities || signer != KubeAPIServerClientSigner && signer != LegacyUnknownSigner {
		return
	}
	for _, name := range append([]string{a.CommonName}, a.Organizations...) {
		if strings.HasPrefix(name, "system:") {
			j.doubt(identityReserved, "the request asks to be %s, which the policy does not let rules approve", quote(name))
		}
	}
}
