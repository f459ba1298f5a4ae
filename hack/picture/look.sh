#!/usr/bin/env bash
# Draws clusters that are whole and broken, large and with hostile names, and
# looks at them in a browser. $1: where to keep screenshots and prints.
set -euo pipefail
cd "$(dirname "$0")/../.."
kubepki=${KUBEPKI_BUILD:-.build}/kubepki
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
{
	sed '/^workers:/,$d' examples/quickstart.yaml
	echo workers:
	for i in $(seq 50); do echo "- {name: w$i, address: 10.99.1.$i}"; done
	echo 'users:'
	echo '- {name: jane, groups: [developers], validity: 720h}'
} >"$work/cluster.yaml"
"$kubepki" init --out "$work/whole" --config "$work/cluster.yaml" --manifests >/dev/null 2>&1
"$kubepki" init --out "$work/other" --config "$work/cluster.yaml" --manifests >/dev/null 2>&1
cp -a "$work/whole" "$work/broken"
cp "$work/other/w7/etc/kubernetes/kubelet.conf" "$work/broken/w7/etc/kubernetes/kubelet.conf"
cp "$work"/other/cp2/etc/kubernetes/pki/etcd/server.* "$work/broken/cp2/etc/kubernetes/pki/etcd/"
mkdir "$work/hostile"
cp -a "$work/whole/cp1" "$work/hostile/"'"><img src=x onerror=alert(1)>'
cp -a "$work/whole/w1" "$work/hostile/"'`# x` **b** $(id) 1. [a](b)'
for cluster in whole broken hostile; do
	"$kubepki" graph "$work/$cluster" -o svg >"$work/out/$cluster.svg"
	"$kubepki" graph "$work/$cluster" -o html >"$work/out/$cluster.html"
	"$kubepki" graph "$work/$cluster" -o mermaid >"$work/out/$cluster.mmd"
done
node hack/picture/look.mjs "$work/out" "$@"
