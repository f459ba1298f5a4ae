// Package rollover plans how the certificates of an issuer are carried over to another
// CA, so that at no moment a client and a server refuse each other: the new CA is
// published beside the old one, then it signs, then leaves are issued anew, then the old
// one goes (docs/design/0021-ca-rollover.md).
//
// It is pure. A [Record] is all that is remembered between two looks; what else counts
// is in [Seen]. Its functions may be called by several goroutines.
package rollover
