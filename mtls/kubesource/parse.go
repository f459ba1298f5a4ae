package kubesource

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// content is what an object holds that matters here.
type content struct {
	name string
	data map[string][]byte // by key
}

// errGone tells of an object that is not there.
var errGone = errors.New("there is none")

func (c *Config) parsePair(all []content) (*tls.Certificate, error) {
	if len(all) == 0 {
		return nil, errGone
	}
	for _, key := range []string{certificateKey, privateKey} {
		if len(all[0].data[key]) == 0 {
			return nil, fmt.Errorf("data[%s] is not set", key)
		}
	}
	return mtls.ParsePair(all[0].data[certificateKey], all[0].data[privateKey], c.Usage)
}

func (b Bundle) parse(all []content) (*mtls.Bundle, error) {
	if len(all) == 0 {
		return nil, errGone
	}
	if b.kind == kindTrustBundles {
		return join(all)
	}
	data, ok := all[0].data[b.key]
	if !ok {
		return nil, fmt.Errorf("data[%s] is not set", b.key)
	}
	bundle, err := mtls.ParseBundle(data)
	if err != nil && b.key != "" {
		err = fmt.Errorf("data[%s]: %w", b.key, err)
	}
	return bundle, err
}

// join makes one bundle of several: each anchor once, sorted by its DER, so that
// the order of the objects does not matter (k/k
// pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go,
// normalizeTrustAnchors, which shuffles them after that).
func join(all []content) (*mtls.Bundle, error) {
	var anchors []*x509.Certificate
	size := 0
	for _, c := range all {
		if size += len(c.data[""]); size > maxJoined {
			return nil, fmt.Errorf("they are together larger than %d bytes: select fewer by labels", maxJoined)
		}
		more, err := trust.ParseCertificates(c.data[""])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		anchors = append(anchors, more...)
	}
	slices.SortFunc(anchors, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return mtls.NewBundle(slices.CompactFunc(anchors, (*x509.Certificate).Equal)...)
}

// maxJoined bounds what the bundles of a signer take, in bytes: four of the
// largest objects.
const maxJoined = 4 * trust.MaxPEM
