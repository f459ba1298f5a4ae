#!/usr/bin/env bash
# Builds kubepki and the real components that the lab runs, into
# ${KUBEPKI_BUILD:-<repository>/.build}. Quick when nothing has changed: the
# large programs are only linked again when one of their inputs did.
set -euo pipefail

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${KUBEPKI_BUILD:-$lab/../.build}
mkdir -p "$build"
build=$(cd "$build" && pwd)

version=$(cd "$lab" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
flags="-X k8s.io/component-base/version.gitVersion=$version"
flags+=" -X k8s.io/component-base/version.gitMajor=$major"
flags+=" -X k8s.io/component-base/version.gitMinor=$minor"

# go build compares the inputs with what the program was linked from, and
# leaves it alone when they are the same. The commit is no input of the real
# components: stamping it would link them again after every commit.
(cd "$lab/.." && CGO_ENABLED=0 go build -o "$build/kubepki" ./cmd/kubepki)
(cd "$lab" && CGO_ENABLED=0 go build -buildvcs=false -o "$build/kubepki-lab" ./cmd/kubepki-lab)
(cd "$lab" && go build -buildvcs=false -o "$build/etcd" ./cmd/etcd)
(cd "$lab" && CGO_ENABLED=0 go build -buildvcs=false -o "$build/pods" ./cmd/pods)
(cd "$lab" && go build -buildvcs=false -ldflags "$flags" -o "$build/kubernetes" ./cmd/kubernetes)

for component in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl sample-apiserver; do
	ln -sfn kubernetes "$build/$component"
done
for program in kube-proxy-client pod-client webhook; do
	ln -sfn pods "$build/$program"
done
