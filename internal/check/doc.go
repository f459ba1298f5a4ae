// Package check judges a trust graph: rules that each find one kind of fault,
// and a root-cause analysis that names each fault once, at the place where the
// mend is made, with what merely follows from it below.
//
// It is pure: time comes in as an argument. A rule is one small function in
// the table of [Rules].
package check
