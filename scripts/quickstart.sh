#!/bin/sh
# make quickstart: from a fresh machine to a command in a real microVM.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n==> %s\n' "$*"; }
die() {
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

# as_root runs a command that installs packages.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		die "this needs root, and there is no sudo: run as root: $*"
	fi
}

# need PACKAGE PROGRAM: remembers a package whose program is missing.
missing=
need() { command -v "$2" >/dev/null 2>&1 || missing="$missing $1"; }

command -v go >/dev/null 2>&1 || die "Go is not installed: see https://go.dev/doc/install"
need qemu-system-x86 qemu-system-x86_64
need busybox-static busybox
need make make
if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 || die "install what these packages hold on your distribution:$missing"
	say "installing$missing"
	# shellcheck disable=SC2086 # a list of packages
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null || {
		as_root apt-get -qq update
		# shellcheck disable=SC2086
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
	}
fi

say "building micropod"
make --no-print-directory build

root=${MICROPOD_ROOT:-$HOME/.config/micropod}
if [ ! -e "$root/vmlinux" ]; then
	say "fetching a guest kernel"
	./scripts/download-kernel.sh --root "$root"
fi

say "what micropod found on this machine"
./micropod doctor

say "making an image of the distribution's busybox"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
./scripts/busybox-image.sh "$tmp/busybox.tar"
./micropod load -i "$tmp/busybox.tar"

say "micropod run --rm micropod/busybox …"
# shellcheck disable=SC2016 # the guest's shell expands it
./micropod run --rm micropod/busybox sh -c '
	echo "hello from inside a microVM: $(uname -srm)"
	echo "its processes:"
	ps'

say "next, with an image of Docker Hub:"
echo "    ./micropod run --rm -it alpine sh"
