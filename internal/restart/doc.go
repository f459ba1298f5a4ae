// Package restart starts running components again, so that they take up what
// they read at their start alone.
//
// [Plan] says which of them must be, and in what order: data, made of a graph,
// of what was changed and of the reload matrix. [Runner] goes through a plan,
// one process at a time, and stops at the first that does not come back.
// [Machine] does it on the machine that the program runs on: containers of
// static pods by the container runtime or by moving the manifest away and back,
// units by systemd's D-Bus interface. No component of Kubernetes takes
// credentials up by a signal, and nothing is ended here that nobody is known to
// start again.
package restart
