// Package apply carries out on nodes' file systems what package renew plans: it
// makes keys and certificates, judges in memory what the nodes will then be, and
// writes the files in one journalled transaction per node, with a copy of each
// file that is replaced. Nothing is written before all is made and could be staged.
package apply
