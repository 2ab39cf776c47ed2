#!/bin/sh
# make kvm-shell: a shell on a machine with KVM, with this tree's micropod, a guest
# kernel and the Firecracker of the tests. Arguments are flags of kvmhost.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
setup=$(./scripts/test-setup.sh)
eval "$setup"
make --no-print-directory build >&2
mkdir -p .cache
go build -o .cache/kvmhost ./test/kvmhost/cmd/kvmhost
PATH=$PWD:${MICROPOD_TEST_FIRECRACKER:+$MICROPOD_TEST_FIRECRACKER:}$PATH
MICROPOD_ROOT=/tmp/micropod
export PATH MICROPOD_ROOT
# shellcheck disable=SC2016 # expanded in the host
exec .cache/kvmhost shell --show "$PWD" --show "$MICROPOD_TEST_CACHE" "$@" -- sh -c '
	mkdir -p "$MICROPOD_ROOT" && cp -R "${MICROPOD_TEST_KERNEL%/*}/." "$MICROPOD_ROOT" && exec bash -i'
