// Package unixsocket opens unix sockets that processes of some users alone can
// use, and nobody else can put another in the place of.
package unixsocket
