// Package apart runs the tests of a package each in a process of its own, several
// at once.
//
// Tests on real components mostly wait, for a component to start, to take up a
// file, to answer. They cannot wait beside each other in one process, as all of it
// is in one network, with one set of addresses. A process of its own, with
// namespaces of its own, shares nothing with the others but the programs.
package apart
