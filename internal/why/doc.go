// Package why tells what a Certificate of cert-manager.io waits for: from the objects
// that hang on it, as they were seen, to the first cause and what to do about it. It
// computes alone; who reads the objects is the command.
//
// No key is in what it is given: of a Secret it keeps the certificate and facts
// ([NewSecret]).
package why
