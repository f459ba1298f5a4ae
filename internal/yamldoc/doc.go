// Package yamldoc tells whether a YAML text is one document: the decoders of
// objects take the first and say nothing of others.
package yamldoc
