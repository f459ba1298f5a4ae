package proxyclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// rules are of the kinds that kube-proxy programs in mode nftables: a map of
// verdicts, a choice by chance, and an address that is replaced
// (k/k pkg/proxy/nftables/proxier.go).
const rules = `table ip kubepki-lab {
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
	chain endpoint-1 { meta l4proto tcp dnat to 192.0.2.2:443; }
	chain service-1 { numgen random mod 1 vmap { 0 : goto endpoint-1 }; }
	chain nat-output { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @service-ips; }
	chain nat-postrouting { type nat hook postrouting priority 100; mark 0x4000 masquerade fully-random; }
	chain filter-output { type filter hook output priority -110; ct state new fib daddr type local accept; }
}
`

// CanProgram tells whether kube-proxy can program its rules on this machine; nil
// is yes, an error says why not. It tries, with nft, in a network namespace of
// its own that nobody else sees. It needs the rights that lab.Main gives.
func CanProgram(ctx context.Context) error {
	nft, err := exec.LookPath("nft")
	if errors.Is(err, exec.ErrNotFound) {
		nft, err = exec.LookPath("/usr/sbin/nft") // not in everybody's PATH
	}
	if err != nil {
		return fmt.Errorf("kube-proxy needs nft (Debian package nftables): %w", err)
	}
	cmd := exec.CommandContext(ctx, nft, "-f", "-")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdin = bytes.NewReader([]byte(rules))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the kernel refuses kube-proxy's rules: %w: %s", err, bytes.TrimSpace(output))
	}
	return nil
}
