package signer

import "github.com/kubepki/kubepki/internal/issue"

// Source gives the authority that signs now. It may be used by several
// goroutines.
type Source interface {
	// Authority returns the certificate that signs, with the means to sign and
	// the chain that leaves carry.
	Authority() (issue.Authority, error)
}
