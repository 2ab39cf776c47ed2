#!/bin/sh
# make test: everything, real microVMs included. Nothing is skipped for want of
# a tool: MICROPOD_TEST_REQUIRE makes that a failure.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
export MICROPOD_TEST_REQUIRE=1

setup=$(./scripts/test-setup.sh)
eval "$setup"

./scripts/lint.sh
./scripts/vulncheck.sh
make --no-print-directory build

./scripts/test-unprivileged.sh
./scripts/test-firecracker.sh
# One package at a time: emulated machines that share two cores are slower
# together than one after the other.
# shellcheck disable=SC2046 # a list of packages; test-firecracker.sh ran that one
exec go test -p 1 -timeout 60m $(go list ./... | grep -v '/test/firecracker$')
