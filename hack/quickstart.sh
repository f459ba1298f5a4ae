#!/usr/bin/env bash
# The credentials of a small cluster in ./quickstart, proved link by link.
# A second run keeps what is there and completes what is not.
set -euo pipefail
cd "$(dirname "$0")/.."
kubepki=.build/kubepki
dir=quickstart

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$*"; }

say "1. every credential of the cluster: kubepki init --out $dir --config examples/quickstart.yaml --manifests"
"$kubepki" init --out "$dir" --config examples/quickstart.yaml --manifests >/dev/null
say "2. what there is: kubepki show $dir"
"$kubepki" show "$dir"
say "3. the proof, link by link: kubepki verify $dir"
"$kubepki" verify "$dir"
cat <<TXT

What to do next
  read one file          $kubepki show $dir/cp1/etc/kubernetes/admin.conf
  break something        cp $dir/cp2/etc/kubernetes/pki/ca.key $dir/cp1/etc/kubernetes/pki/ca.key; rm $dir/cp1/etc/kubernetes/pki/apiserver.crt
  see the cause          $kubepki verify $dir
  add a person           $kubepki kubeconfig user joe --group developers --root $dir/cp1 --file joe.conf
  bring it to a node     rsync -rp $dir/cp1/* root@cp1:/
  start over             rm -r $dir && make quickstart
TXT
