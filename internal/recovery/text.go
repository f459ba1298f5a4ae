package recovery

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"regexp"

	"github.com/kubepki/kubepki/internal/trust"
)

// Exchange is a certificate of an authority and what takes its place.
type Exchange struct{ Old, New *x509.Certificate }

// InPEM returns a PEM text with the new certificates in the places of the old ones, each
// once, and all else as it is, to the byte. It is an error when the text does not parse.
func InPEM(text []byte, exchanges []Exchange) ([]byte, error) {
	blocks, err := trust.Blocks(text)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	var out []byte
	next := 0 // index of the line that is not copied yet
	there := map[string]bool{}
	for _, b := range blocks {
		there[string(b.DER)] = true
	}
	for _, b := range blocks {
		x := exchangeOf(b.DER, exchanges)
		if x == nil || b.Type != trust.CertificateType {
			continue
		}
		for ; next < b.Line-1; next++ {
			out = append(out, lines[next]...)
		}
		for next < len(lines)-1 && !bytes.Contains(lines[next], []byte("-----END ")) {
			next++
		}
		next++
		if !there[string(x.New.Raw)] {
			there[string(x.New.Raw)] = true
			out = append(out, trust.EncodeCertificates(x.New)...)
		}
	}
	for ; next < len(lines); next++ {
		out = append(out, lines[next]...)
	}
	return out, nil
}

func exchangeOf(der []byte, exchanges []Exchange) *Exchange {
	for i := range exchanges {
		if bytes.Equal(exchanges[i].Old.Raw, der) {
			return &exchanges[i]
		}
	}
	return nil
}

var authorityData = regexp.MustCompile(`certificate-authority-data["']?[ \t]*:[ \t]*["']?([A-Za-z0-9+/]+=*)`)

// InKubeconfig does the same with each certificate-authority-data of a kubeconfig
// (YAML or JSON), of all its clusters. A value that is not written in one piece stays
// as it is.
func InKubeconfig(text []byte, exchanges []Exchange) []byte {
	var out []byte
	next := 0
	for _, at := range authorityData.FindAllSubmatchIndex(text, -1) {
		value := text[at[2]:at[3]]
		data, err := base64.StdEncoding.DecodeString(string(value))
		if err != nil {
			continue
		}
		if changed, err := InPEM(data, exchanges); err == nil {
			out = append(out, text[next:at[2]]...)
			out = base64.StdEncoding.AppendEncode(out, changed)
			next = at[3]
		}
	}
	return append(out, text[next:]...)
}
