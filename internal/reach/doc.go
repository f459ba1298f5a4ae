// Package reach reaches machines over SSH: it reads how they are named, proves who
// they are by known_hosts, shows them keys of an agent or of files, and runs one
// program there. It never accepts a host key that nobody confirmed, asks for no
// password, and forwards nothing.
package reach
