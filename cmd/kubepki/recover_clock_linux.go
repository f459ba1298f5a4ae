package main

import "syscall"

// unsynchronised tells that the kernel knows its clock to follow no other (adjtimex(2)):
// asking changes nothing. Where it may not be asked, nothing is known.
func unsynchronised() bool {
	const timeError, statusUnsynchronised = 5, 0x40
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return err == nil && (state == timeError || t.Status&statusUnsynchronised != 0)
}
