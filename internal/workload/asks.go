package workload

import (
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
)

// UsagesAsked returns the names of the usages that the extensions of a request (PEM) ask
// for, and whether it is an authority that is asked for: what the CertificateRequest has
// to say too. No names are returned for a request without such extensions.
func UsagesAsked(request []byte) (usages []cmapi.KeyUsage, isCA bool, err error) {
	r, err := parseRequest(request)
	if err != nil {
		return nil, false, err
	}
	found := requestExtensions{names: &names{}}
	for _, e := range r.Extensions {
		if err := found.read(e); err != nil {
			return nil, false, err
		}
	}
	seen := found.usage
	for _, k := range keyUsages {
		if seen&k.usage != 0 {
			usages, seen = append(usages, k.name), seen&^k.usage
		}
	}
	if seen != 0 {
		return nil, false, fmt.Errorf("asks for key usages without a name")
	}
	for _, u := range found.extended {
		for _, e := range extKeyUsages {
			if e.usage == u {
				usages = append(usages, e.name)
				break
			}
		}
	}
	return usages, found.isCA, nil
}
