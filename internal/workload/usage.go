package workload

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
)

var keyUsages = []struct {
	name  cmapi.KeyUsage
	usage x509.KeyUsage
}{
	{cmapi.UsageDigitalSignature, x509.KeyUsageDigitalSignature},
	{cmapi.UsageSigning, x509.KeyUsageDigitalSignature},
	{cmapi.UsageContentCommitment, x509.KeyUsageContentCommitment},
	{cmapi.UsageKeyEncipherment, x509.KeyUsageKeyEncipherment},
	{cmapi.UsageKeyAgreement, x509.KeyUsageKeyAgreement},
	{cmapi.UsageDataEncipherment, x509.KeyUsageDataEncipherment},
	{cmapi.UsageCertSign, x509.KeyUsageCertSign},
	{cmapi.UsageCRLSign, x509.KeyUsageCRLSign},
	{cmapi.UsageEncipherOnly, x509.KeyUsageEncipherOnly},
	{cmapi.UsageDecipherOnly, x509.KeyUsageDecipherOnly},
}

// The identifiers are those of crypto/x509, which does not export them.
var extKeyUsages = []struct {
	name  cmapi.KeyUsage
	usage x509.ExtKeyUsage
	oid   asn1.ObjectIdentifier
}{
	{cmapi.UsageAny, x509.ExtKeyUsageAny, asn1.ObjectIdentifier{2, 5, 29, 37, 0}},
	{cmapi.UsageServerAuth, x509.ExtKeyUsageServerAuth, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}},
	{cmapi.UsageClientAuth, x509.ExtKeyUsageClientAuth, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}},
	{cmapi.UsageCodeSigning, x509.ExtKeyUsageCodeSigning, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}},
	{cmapi.UsageEmailProtection, x509.ExtKeyUsageEmailProtection, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}},
	{cmapi.UsageSMIME, x509.ExtKeyUsageEmailProtection, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}},
	{cmapi.UsageIPsecEndSystem, x509.ExtKeyUsageIPSECEndSystem, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 5}},
	{cmapi.UsageIPsecTunnel, x509.ExtKeyUsageIPSECTunnel, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 6}},
	{cmapi.UsageIPsecUser, x509.ExtKeyUsageIPSECUser, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 7}},
	{cmapi.UsageTimestamping, x509.ExtKeyUsageTimeStamping, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}},
	{cmapi.UsageOCSPSigning, x509.ExtKeyUsageOCSPSigning, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}},
	{cmapi.UsageMicrosoftSGC, x509.ExtKeyUsageMicrosoftServerGatedCrypto, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 10, 3, 3}},
	{cmapi.UsageNetscapeSGC, x509.ExtKeyUsageNetscapeServerGatedCrypto, asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 4, 1}},
}

// Usages turns the names of usages into what a certificate holds. None are digital
// signature and key encipherment, as the API documents; an authority may sign
// certificates in any case. The extended ones keep their order, twice named is twice
// there: upstream compares them so.
func Usages(names []cmapi.KeyUsage, isCA bool) (x509.KeyUsage, []x509.ExtKeyUsage, error) {
	if len(names) == 0 {
		names = cmapi.DefaultKeyUsages()
	}
	var usage x509.KeyUsage
	var extended []x509.ExtKeyUsage
	if isCA {
		usage = x509.KeyUsageCertSign
	}
	for i, name := range names {
		if k, ok := keyUsageNamed(name); ok {
			usage |= k
		} else if e, ok := extKeyUsageNamed(name); ok {
			extended = append(extended, e)
		} else {
			return 0, nil, fmt.Errorf("spec.usages[%d]: %q is no usage", i, name)
		}
	}
	return usage, extended, nil
}

func keyUsageNamed(name cmapi.KeyUsage) (x509.KeyUsage, bool) {
	for _, k := range keyUsages {
		if k.name == name {
			return k.usage, true
		}
	}
	return 0, false
}

func extKeyUsageNamed(name cmapi.KeyUsage) (x509.ExtKeyUsage, bool) {
	for _, e := range extKeyUsages {
		if e.name == name {
			return e.usage, true
		}
	}
	return 0, false
}

// usageNames is for messages: the names of usages, each quoted.
func usageNames(usage x509.KeyUsage, extended []x509.ExtKeyUsage) []string {
	names := []string{}
	seen := x509.KeyUsage(0)
	for _, k := range keyUsages {
		if usage&k.usage != 0 && seen&k.usage == 0 {
			names, seen = append(names, fmt.Sprintf("%q", k.name)), seen|k.usage
		}
	}
	for _, u := range extended {
		for _, e := range extKeyUsages {
			if e.usage == u {
				names = append(names, fmt.Sprintf("%q", e.name))
				break
			}
		}
	}
	return names
}

// usageExtensions are keyUsage and extKeyUsage of a request.
func usageExtensions(usage x509.KeyUsage, extended []x509.ExtKeyUsage) ([]pkix.Extension, error) {
	var extensions []pkix.Extension
	if usage != 0 {
		der, err := asn1.Marshal(usageBits(usage))
		if err != nil {
			return nil, fmt.Errorf("encoding key usage: %w", err)
		}
		extensions = append(extensions, pkix.Extension{Id: oidKeyUsage, Critical: true, Value: der})
	}
	if len(extended) == 0 {
		return extensions, nil
	}
	oids := make([]asn1.ObjectIdentifier, 0, len(extended))
	for _, u := range extended {
		i := slices.IndexFunc(extKeyUsages, func(e struct {
			name  cmapi.KeyUsage
			usage x509.ExtKeyUsage
			oid   asn1.ObjectIdentifier
		}) bool {
			return e.usage == u
		})
		if i < 0 {
			return nil, fmt.Errorf("extended usage %d cannot be requested", u)
		}
		oids = append(oids, extKeyUsages[i].oid)
	}
	der, err := asn1.Marshal(oids)
	if err != nil {
		return nil, fmt.Errorf("encoding extended key usage: %w", err)
	}
	return append(extensions, pkix.Extension{Id: oidExtKeyUsage, Value: der}), nil
}

// usageBits has bit 0 first and no zeros at its end (RFC 5280 section 4.2.1.3, DER).
func usageBits(usage x509.KeyUsage) asn1.BitString {
	var b asn1.BitString
	for i := range 9 {
		if usage&(1<<i) == 0 {
			continue
		}
		for len(b.Bytes) <= i/8 {
			b.Bytes = append(b.Bytes, 0)
		}
		b.Bytes[i/8] |= 0x80 >> (i % 8)
		b.BitLength = i + 1
	}
	return b
}

func parseKeyUsage(der []byte) (x509.KeyUsage, error) {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(der, &bits); err != nil || len(rest) > 0 {
		return 0, errors.New("the key usage does not parse")
	}
	var usage x509.KeyUsage
	for i := range 9 {
		if bits.At(i) != 0 {
			usage |= 1 << i
		}
	}
	return usage, nil
}

func parseExtKeyUsage(der []byte) ([]x509.ExtKeyUsage, error) {
	var oids []asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(der, &oids); err != nil || len(rest) > 0 {
		return nil, errors.New("the extended key usage does not parse")
	}
	var usages []x509.ExtKeyUsage
	for _, oid := range oids {
		found := false
		for _, e := range extKeyUsages {
			if found = e.oid.Equal(oid); found {
				usages = append(usages, e.usage)
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("extended usage %s has no name in spec.usages, so that nobody could approve it", oid)
		}
	}
	return usages, nil
}
