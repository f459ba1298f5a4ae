package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// machineFolders are what every machine has and a node shares with the machine
// that the lab runs on, those of them that are there: some programs in /usr are
// links by way of /etc/alternatives. They cannot be written to through a node,
// not even by root: a test that removes a node's folder must not remove the
// machine.
var machineFolders = []string{"usr", "sys", "etc/alternatives"}

// machineDevices are the devices that programs expect, those of them that are
// there. A node has a /dev of its own with no other in it. A kubelet reads
// /dev/kmsg; in a user namespace it may not, and does without.
var machineDevices = []string{"null", "zero", "full", "random", "urandom", "tty", "kmsg"}

// machineLinks stand beside /usr where it holds all programs, and where they
// are links on the machine itself.
var machineLinks = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// ProgramsDir is the folder, on a node that is a machine, of the lab's programs.
const ProgramsDir = "/opt/kubepki-lab"

// MountMachine puts the machine's own folders below a root folder: that of a
// node, or that of a container on it. The mounts are in the lab's own mount
// namespace: nobody else sees them, and they end with the lab or by
// [UnmountMachine]. Until then nobody may remove what is below root.
func MountMachine(root, programs string) error {
	// The folder becomes a mount of its own. A program that has it as its "/" can
	// then ask which file system it is on, as the kubelet does to measure it, and
	// whatever is mounted below goes away with it.
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at itself: %w", root, err)
	}
	for _, link := range machineLinks {
		target, err := os.Readlink("/" + link)
		if err != nil {
			continue // not on this machine
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, folder := range machineFolders {
		if _, err := os.Stat("/" + folder); err != nil {
			continue // not on this machine
		}
		if err := bindReadOnly("/"+folder, filepath.Join(root, folder)); err != nil {
			return err
		}
	}
	if err := bindReadOnly(programs, filepath.Join(root, ProgramsDir)); err != nil {
		return err
	}
	if err := mountDevices(filepath.Join(root, "dev")); err != nil {
		return err
	}
	proc := filepath.Join(root, "proc")
	if err := os.MkdirAll(proc, 0o755); err != nil {
		return err
	}
	// Nothing can be removed from /proc.
	if err := unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /proc at %s: %w", proc, err)
	}
	return mountKernel(root)
}

// kernelValues are those that a kubelet gives to the machine's kernel, below
// /proc/sys (k8s.io/component-helpers/node/util/sysctl).
var kernelValues = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// mountKernel lets nobody on a node change the machine's kernel, which root
// could where there is no user namespace, but for the network, which is the
// node's own. A kubelet finds the values that it would set.
func mountKernel(root string) error {
	if err := bindReadOnly("/proc/sys", filepath.Join(root, "proc/sys")); err != nil {
		return err
	}
	network := filepath.Join(root, "proc/sys/net")
	if err := unix.Mount("/proc/sys/net", network, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /proc/sys/net at %s: %w", network, err)
	}
	for name, value := range kernelValues {
		// A place that goes with the node's mounts.
		file := filepath.Join(root, "dev/.kernel", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		target := filepath.Join(root, "proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue // not in this kernel
		}
		if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount the value of %s: %w", name, err)
		}
	}
	return nil
}

// bindReadOnly shows a folder of the machine below a node's root.
func bindReadOnly(folder, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(folder, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", folder, target, err)
	}
	attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, attributes); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// mountDevices makes a /dev. Devices cannot be made in a user namespace, so the
// machine's are bound to empty files.
func mountDevices(dev string) error {
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dev, err)
	}
	for _, device := range machineDevices {
		if _, err := os.Stat("/dev/" + device); err != nil {
			continue // not on this machine
		}
		target := filepath.Join(dev, device)
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+device, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /dev/%s at %s: %w", device, target, err)
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, filepath.Join(dev, link)); err != nil {
			return err
		}
	}
	return nil
}

// UnmountMachine takes away what [MountMachine] mounted and whatever was mounted
// below it since, a kubelet's volumes too. It is no error that nothing was.
func UnmountMachine(root string) error {
	err := unix.Unmount(root, unix.MNT_DETACH)
	// EINVAL: nothing is mounted there. ENOENT: not even a folder.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", root, err)
	}
	return nil
}
