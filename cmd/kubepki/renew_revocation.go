package main

import (
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/renew"
)

// stillValid says until when copies of what was replaced are good yet; "" where all
// of it has ended.
func stillValid(r *apply.Renewal) string {
	var last time.Time
	for _, i := range r.Items {
		if i.Old != nil && i.Kind != renew.Authority && i.Old.NotAfter.After(last) {
			last = i.Old.NotAfter
		}
	}
	if !last.After(r.At) {
		return ""
	}
	return fmt.Sprintf("copies of what was replaced are good until %s, for Kubernetes revokes nothing: docs/revocation.md tells what to do if one is in wrong hands", last.UTC().Format(time.DateOnly))
}
