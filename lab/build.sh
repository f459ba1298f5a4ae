#!/usr/bin/env bash
# Builds kubepki and the real components that the lab runs, into
# ${KUBEPKI_BUILD:-<repository>/.build}. Quick when nothing has changed: the
# large programs are only linked again when one of their inputs did.
#
# "build.sh 1.35" builds the components of that minor version, from go-1.35.mod,
# into the folder 1.35 below. What runs them is the same: KUBEPKI_BUILD says
# which a test starts.
set -euo pipefail

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${KUBEPKI_BUILD:-$lab/../.build}
modfile=$lab/go.mod
if [[ $# -gt 0 ]]; then
	modfile=$lab/go-$1.mod
	build=$build/$1
	[[ -e $modfile ]] || { echo "build.sh: $modfile is missing: no such minor version is known here" >&2; exit 2; }
fi
mkdir -p "$build"
build=$(cd "$build" && pwd)

version=$(cd "$lab" && go list -modfile="$modfile" -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
flags="-X k8s.io/component-base/version.gitVersion=$version"
flags+=" -X k8s.io/component-base/version.gitMajor=$major"
flags+=" -X k8s.io/component-base/version.gitMinor=$minor"

# go build compares the inputs with what the program was linked from, and
# leaves it alone when they are the same. The commit is no input of the real
# components: stamping it would link them again after every commit.
(cd "$lab/.." && CGO_ENABLED=0 go build -tags grpcnotrace -o "$build/kubepki" ./cmd/kubepki)
(cd "$lab/.." && CGO_ENABLED=0 go build -buildvcs=false -o "$build/extension-apiserver" ./examples/extension-apiserver)
(cd "$lab" && go build -buildvcs=false -o "$build/kubepki-lab" ./cmd/kubepki-lab)
(cd "$lab" && go build -buildvcs=false -o "$build/pods" ./cmd/pods)
(cd "$lab" && go build -modfile="$modfile" -buildvcs=false -o "$build/etcd" ./cmd/etcd)
(cd "$lab" && go build -modfile="$modfile" -buildvcs=false -ldflags "$flags" -o "$build/kubernetes" ./cmd/kubernetes)
# cert-manager is no component of Kubernetes, has a module of its own, and is the same
# for each version.
if [[ $# -eq 0 ]]; then
	version=$(cd "$lab/certmanager" && go list -m -f '{{.Version}}' github.com/cert-manager/cert-manager)
	flags="-s -w -X github.com/cert-manager/cert-manager/pkg/util.AppVersion=$version"
	(cd "$lab/certmanager" && CGO_ENABLED=0 go build -buildvcs=false -ldflags "$flags" -o "$build/cert-manager" .)
fi

for component in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl sample-apiserver; do
	ln -sfn kubernetes "$build/$component"
done
for program in kube-proxy-client pod-client webhook; do
	ln -sfn pods "$build/$program"
done
