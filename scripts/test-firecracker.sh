#!/bin/sh
# make test-firecracker: the tests of a real Firecracker on a real KVM, in an
# emulated host where this machine has no KVM of its own.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
export MICROPOD_TEST_REQUIRE=1

setup=$(./scripts/test-setup.sh)
eval "$setup"
make --no-print-directory build
exec go test -v -count=1 -timeout 120m ./test/firecracker
