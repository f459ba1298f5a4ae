package kubelet

import (
	"errors"
	"fmt"
	"os/exec"

	"github.com/moby/sys/mountinfo"
)

// Possible tells what keeps a real kubelet from running on this machine: nil,
// nothing that is known before. Where it cannot run, light nodes can (package
// light).
func Possible() error {
	for _, program := range []string{"mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a kubelet calls the machine's programs: %w", err)
		}
	}
	groups, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		// k/k cmd/kubelet/app/server.go: "failed to find cgroup mounts", of either
		// version, and whether it may write to them or not.
		return errors.New("a kubelet wants to see control groups, and none are mounted, as below /sys/fs/cgroup")
	}
	return nil
}
