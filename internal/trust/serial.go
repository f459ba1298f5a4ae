package trust

import (
	"math/big"
	"strings"
)

// SerialText is a serial number (RFC 5280 section 4.1.2.2) as openssl x509
// -serial prints it: pairs of upper-case hexadecimal digits, one for each octet.
func SerialText(n *big.Int) string {
	text := strings.ToUpper(n.Text(16))
	if len(text)%2 == 1 {
		text = "0" + text
	}
	return text
}
