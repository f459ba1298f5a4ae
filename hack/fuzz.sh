#!/usr/bin/env bash
# Runs each fuzz target of the repository for the time given (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}

# fuzz runs the targets below folders of the module that it is called in.
fuzz() {
	grep -rlE '^func Fuzz' --include='*_test.go' "$@" | xargs -n1 dirname | sort -u | while read -r dir; do
		grep -hoE '^func Fuzz[A-Za-z0-9]+' "$dir"/*_test.go | sed 's/func //' | while read -r target; do
			echo "== $dir $target"
			go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
		done
	done
}

fuzz internal token mtls cmd
# What Kubernetes' own code says of the same input.
cd lab
fuzz internal
