package cri

import (
	"cmp"
	"slices"

	"k8s.io/kubelet/pkg/types"
)

// Running is a container whose process runs.
type Running struct {
	Namespace, Pod, Container string
	PID                       int // in the process namespace of the lab
}

// Running lists the containers whose process runs, in the order of their names.
func (s *Server) Running() []Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Running
	for _, c := range s.containers {
		if c.process == nil || !c.process.runs() {
			continue
		}
		labels := c.config.Labels
		all = append(all, Running{
			Namespace: labels[types.KubernetesPodNamespaceLabel], Pod: labels[types.KubernetesPodNameLabel],
			Container: labels[types.KubernetesContainerNameLabel], PID: c.process.pid(),
		})
	}
	slices.SortFunc(all, func(a, b Running) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return all
}

// pid is the number of the process; it must have been started.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}
