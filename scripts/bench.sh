#!/bin/sh
# make bench: ratios between MicroPod and what does the same work by hand, see
# docs/benchmarks.md. Arguments go to test/bench:
#   scripts/bench.sh -rounds 3 -only pull
#   scripts/bench.sh -only kvm -here
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
PATH=$PATH:/usr/sbin:/sbin # mke2fs, for an ordinary user

setup=$(./scripts/test-setup.sh)
eval "$setup"
layout=$MICROPOD_TEST_CACHE/big
go run ./test/images -big "$layout"
[ -x micropod ] || make --no-print-directory build

exec go run ./test/bench -layout "$layout" "$@"
