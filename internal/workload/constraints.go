package workload

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
)

// NameConstraints bound the names below an authority (RFC 5280 section 4.2.1.10).
type NameConstraints struct {
	Critical            bool
	Permitted, Excluded NameSet
}

// NameSet is one side of name constraints.
type NameSet struct {
	DNSDomains     []string
	IPRanges       []netip.Prefix // masked
	EmailAddresses []string
	URIDomains     []string
}

type subtreeDER struct {
	Base asn1.RawValue
	// RFC 5280 has them at 0 and absent; verifiers do not look at them.
	Minimum asn1.RawValue `asn1:"optional,tag:0"`
	Maximum asn1.RawValue `asn1:"optional,tag:1"`
}

type subtreeBase struct{ Base asn1.RawValue }

func (s *NameSet) size() int {
	return len(s.DNSDomains) + len(s.IPRanges) + len(s.EmailAddresses) + len(s.URIDomains)
}

func constraintsOf(spec *cmapi.CertificateSpec) (*NameConstraints, error) {
	c := spec.NameConstraints
	if c == nil {
		return nil, nil
	}
	if !spec.IsCA {
		return nil, errors.New("spec.nameConstraints: only an authority has them: set spec.isCA")
	}
	n := &NameConstraints{Critical: c.Critical}
	var err error
	if n.Permitted, err = nameSetOf(c.Permitted, "permitted"); err != nil {
		return nil, err
	}
	if n.Excluded, err = nameSetOf(c.Excluded, "excluded"); err != nil {
		return nil, err
	}
	if n.Permitted.size()+n.Excluded.size() == 0 {
		return nil, nil
	}
	return n, nil
}

func nameSetOf(item *cmapi.NameConstraintItem, field string) (NameSet, error) {
	if item == nil {
		return NameSet{}, nil
	}
	s := NameSet{DNSDomains: item.DNSDomains, EmailAddresses: item.EmailAddresses, URIDomains: item.URIDomains}
	for i, text := range item.IPRanges {
		_, ipNet, err := net.ParseCIDR(text) // as upstream: takes the forms that netip refuses
		if err != nil {
			return NameSet{}, fmt.Errorf("spec.nameConstraints.%s.ipRanges[%d]: %q is no range of addresses, as 10.0.0.0/8 is", field, i, text)
		}
		address, _ := netip.AddrFromSlice(ipNet.IP)
		ones, _ := ipNet.Mask.Size()
		s.IPRanges = append(s.IPRanges, netip.PrefixFrom(address, ones))
	}
	for _, list := range [][]string{s.DNSDomains, s.EmailAddresses, s.URIDomains} {
		for _, text := range list {
			if text != "" && checkNameText(text) != nil {
				return NameSet{}, fmt.Errorf("spec.nameConstraints.%s: %w", field, checkNameText(text))
			}
		}
	}
	return s, nil
}

func (n *NameConstraints) extension() (pkix.Extension, error) {
	side := func(tag int, s *NameSet) ([]byte, error) {
		if s.size() == 0 {
			return nil, nil
		}
		return asn1.MarshalWithParams(s.subtrees(), fmt.Sprintf("tag:%d", tag))
	}
	permitted, err := side(0, &n.Permitted)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("spec.nameConstraints: %w", err)
	}
	excluded, err := side(1, &n.Excluded)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("spec.nameConstraints: %w", err)
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(permitted, excluded...)})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("spec.nameConstraints: %w", err)
	}
	return pkix.Extension{Id: oidNameConstraints, Critical: n.Critical, Value: der}, nil
}

func (s *NameSet) subtrees() []subtreeBase {
	var list []subtreeBase
	add := func(tag int, value []byte) {
		list = append(list, subtreeBase{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value}})
	}
	for _, d := range s.DNSDomains {
		add(tagDNS, []byte(d))
	}
	for _, r := range s.IPRanges {
		add(tagIP, append(r.Masked().Addr().AsSlice(), net.CIDRMask(r.Bits(), r.Addr().BitLen())...))
	}
	for _, e := range s.EmailAddresses {
		add(tagEmail, []byte(e))
	}
	for _, u := range s.URIDomains {
		add(tagURI, []byte(u))
	}
	return list
}

// parseConstraints reads name constraints strictly: of what it does not understand
// (other kinds of names, minimum and maximum) it says so, for the verifiers that leave
// it out would let more through than is written.
func parseConstraints(e pkix.Extension) (*NameConstraints, error) {
	malformed := errors.New("the name constraints do not parse")
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(e.Value, &outer); err != nil || len(rest) > 0 || outer.Tag != asn1.TagSequence || !outer.IsCompound {
		return nil, malformed
	}
	n := &NameConstraints{Critical: e.Critical}
	last := -1
	for rest := outer.Bytes; len(rest) > 0; {
		var side asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &side); err != nil || side.Class != asn1.ClassContextSpecific || side.Tag <= last || side.Tag > 1 {
			return nil, malformed
		}
		set := &n.Permitted
		if last = side.Tag; side.Tag == 1 {
			set = &n.Excluded
		}
		var list []subtreeDER
		if _, err := asn1.UnmarshalWithParams(side.FullBytes, &list, fmt.Sprintf("tag:%d", side.Tag)); err != nil {
			return nil, malformed
		}
		for _, s := range list {
			if err := set.add(s); err != nil {
				return nil, err
			}
		}
	}
	if n.Permitted.size()+n.Excluded.size() == 0 {
		return nil, errors.New("the name constraints are empty")
	}
	return n, nil
}

func (s *NameSet) add(t subtreeDER) error {
	if len(t.Minimum.FullBytes)+len(t.Maximum.FullBytes) > 0 {
		return errors.New("the name constraints have a minimum or maximum, which verifiers pass over")
	}
	value := t.Base.Bytes
	if t.Base.Class != asn1.ClassContextSpecific || t.Base.IsCompound && t.Base.Tag != tagOther {
		return errors.New("the name constraints do not parse")
	}
	if t.Base.Tag != tagIP && len(value) > 0 && checkNameText(string(value)) != nil {
		return fmt.Errorf("a name constraint %w", checkNameText(string(value)))
	}
	switch t.Base.Tag {
	case tagDNS:
		s.DNSDomains = append(s.DNSDomains, string(value))
	case tagEmail:
		s.EmailAddresses = append(s.EmailAddresses, string(value))
	case tagURI:
		s.URIDomains = append(s.URIDomains, string(value))
	case tagIP:
		half := len(value) / 2
		address, ok := netip.AddrFromSlice(value[:half])
		ones, bits := net.IPMask(value[half:]).Size()
		if !ok || len(value)%2 != 0 || bits == 0 {
			return errors.New("a name constraint is no range of addresses")
		}
		s.IPRanges = append(s.IPRanges, netip.PrefixFrom(address, ones).Masked())
	default:
		return fmt.Errorf("a name constraint is of kind [%d], which is not known", t.Base.Tag)
	}
	return nil
}
