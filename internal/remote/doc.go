// Package remote renews credentials of a node from another machine, over a pair of
// streams with kubepki at both ends: the node tells the facts of its files, makes the
// keys that it will use and asks for certificates, and writes what it gets in one
// transaction. Only facts, requests and certificates travel, never a private key.
//
// A node is believed as little as need be. What it tells is bounded, speaks of itself
// alone ([Facts.Node]), and gives it the credentials that it has proved to hold or that
// its name in the operator's inventory stands for ([Standing.May]).
package remote
