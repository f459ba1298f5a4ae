package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
)

func newExecCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use:   "exec [NODE] -- COMMAND [ARGUMENT…]",
		Short: "Run a command inside the lab: beside its nodes, or on one",
		Long: `Run a command inside the lab. Without a node it runs in this machine's files, but
in the lab's network, where every node has its address, and with KUBECONFIG set.
With a node it runs on that node: its network, and its files as /.`,
		Example: `  kubepki-lab exec -- kubectl get nodes
  kubepki-lab exec cp1 -- kubepki verify --live
  kubepki-lab exec w1 -- sh`,
		Args: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); dash < 0 || dash > 1 || len(args) == dash {
				return usagef("exec [NODE] -- COMMAND: the command comes after two dashes")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			node := ""
			if c.ArgsLenAtDash() == 1 {
				node = args[0]
			}
			return p.exec(node, args[c.ArgsLenAtDash():])
		},
	}
}

// exec becomes a command inside the lab.
func (p *place) exec(node string, command []string) error {
	nsenter, arguments, err := p.enter(node)
	if err != nil {
		return err
	}
	return unix.Exec(nsenter, append(arguments, command...), os.Environ())
}

// enter returns the program by which a command is run inside the lab, and its
// arguments, to which those of the command are to be added. It is nsenter of
// util-linux: a Go program has threads before it can choose, and the kernel lets
// no such program enter a user namespace.
func (p *place) enter(node string) (nsenter string, arguments []string, err error) {
	folder, client, err := p.client()
	if err != nil {
		return "", nil, err
	}
	_ = client.Close()
	programs, err := p.programsDir()
	if err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	half := []string{self, "enter", "--dir", string(folder), "--programs", programs, node, "--"}
	wanted, err := folder.Wanted()
	if err != nil {
		return "", nil, err
	}
	if wanted.Loopback && node != "" {
		return "", nil, usagef("exec %s: on loopback a node has neither files nor a network of its own: leave the node out", node)
	}
	if wanted.Loopback {
		return self, half, nil
	}
	first, err := readFirst(folder)
	if err != nil {
		return "", nil, err
	}
	if nsenter, err = exec.LookPath("nsenter"); err != nil {
		return "", nil, hintedError{err, "install util-linux, or reach the cluster by kubepki-lab env"}
	}
	arguments = []string{"nsenter", "--preserve-credentials", "--mount", "--net", "--pid", "--target", strconv.Itoa(first)}
	if differs, err := otherUserNamespace(first); err != nil {
		return "", nil, err
	} else if differs {
		arguments = append(arguments, "--user")
	}
	folderHere, err := os.Getwd()
	if err != nil {
		return "", nil, err
	}
	return nsenter, append(append(arguments, "--wd="+folderHere, "--"), half...), nil
}

// otherUserNamespace tells whether a process is in another user namespace.
func otherUserNamespace(pid int) (bool, error) {
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return false, err
	}
	own, err := os.Readlink("/proc/self/ns/user")
	return its != own, err
}

// newEnterCommand is the second half of exec, inside the lab's namespaces.
func newEnterCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use: "enter NODE -- COMMAND", Hidden: true,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			folder, programs, err := p.both()
			if err != nil {
				return err
			}
			if args[0] == "" {
				return enterBeside(folder, programs, args[1:])
			}
			return enterNode(folder, args[0], args[1:])
		},
	}
}

// enterBeside runs a command beside the nodes.
func enterBeside(folder cluster.Folder, programs string, command []string) error {
	wanted, err := folder.Wanted()
	if err != nil {
		return err
	}
	spec, err := wanted.Cluster()
	if err != nil {
		return err
	}
	return become(command, map[string]string{
		"KUBECONFIG": folder.AdminConf(spec), "KUBEPKI_LAB_DIR": string(folder), "PATH": programs + ":" + os.Getenv("PATH"),
	})
}

// enterNode runs a command on a node.
func enterNode(folder cluster.Folder, node string, command []string) error {
	if err := lab.Enter(folder.Network(node), folder.Root(node)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return usagef("%q is no node of the lab: %v", node, err)
		}
		return err
	}
	return become(command, map[string]string{
		"KUBECONFIG": "/etc/kubernetes/admin.conf", "HOME": "/", "PATH": lab.ProgramsDir + ":/usr/sbin:/usr/bin:/sbin:/bin",
	})
}

// become replaces the program by a command.
func become(command []string, env map[string]string) error {
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return unix.Exec(program, command, os.Environ())
}
