package probe

import (
	"crypto/tls"
	"errors"
	"net"
)

// alerts are the names of TLS alerts (RFC 8446 section 6, RFC 5246 section 7.2)
// by their numbers.
var alerts = map[uint8]string{
	10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow", 30: "decompression_failure",
	40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired",
	46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
	70: "protocol_version", 71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled",
	109: "missing_extension", 110: "unsupported_extension", 112: "unrecognized_name", 113: "bad_certificate_status_response",
	115: "unknown_psk_identity", 116: "certificate_required", 120: "no_application_protocol",
}

// alertOf returns the name of the alert that the other end sent, empty when the
// error is none. crypto/tls keeps the number to itself, but its text is that of
// the AlertError of the same number.
func alertOf(err error) string {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" || remote.Err == nil {
		return ""
	}
	for number, name := range alerts {
		if tls.AlertError(number).Error() == remote.Err.Error() {
			return name
		}
	}
	return remote.Err.Error()
}
