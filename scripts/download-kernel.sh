#!/bin/sh
# Puts a guest kernel at ROOT/vmlinux.
#
# What is kept, under ROOT (default ~/.config/micropod):
#   kernels/<release>/vmlinuz                 the kernel
#   kernels/<release>/config                  its configuration, where there is one
#   kernels/<release>/lib/modules/<release>/  modules of virtual machines: virtio,
#       file systems of images, networks of containers, and what those depend on;
#       not the drivers of real hardware, which are most of the package
#   vmlinux -> kernels/<release>/vmlinuz
set -eu

usage() {
	cat <<'EOF'
usage: scripts/download-kernel.sh [--root DIR] [--source SOURCE] [--force] [--kvm-host]

  --root DIR        MicroPod's directory (default: $MICROPOD_ROOT or ~/.config/micropod)
  --source SOURCE   auto         debian or ubuntu, whichever this machine is (default)
                    debian       the distribution's package linux-image-cloud-amd64
                    ubuntu       the distribution's package linux-image-virtual
                    firecracker  Firecracker's published CI kernel, over the internet
                    FILE.deb     a kernel package that is already here; give it again
                                 for a second package with the modules
  --force           replace the kernel that is there
  --kvm-host        a kernel for the host of the tests, not for guests: from the
                    distribution's package for real machines, with the modules of KVM
  --help

No root is needed. The packages come from apt's sources and are checked by apt.
MICROPOD_FIRECRACKER_CI (default v1.13) chooses the series of --source firecracker.
EOF
}

say() { printf '%s\n' "$*" >&2; }
die() {
	say "download-kernel: $*"
	exit 1
}
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is not installed${2:+ ($2)}"; }

root=${MICROPOD_ROOT:-}
source=auto
debs=
force=
kvm_host=
while [ $# -gt 0 ]; do
	case $1 in
	--root | --source)
		[ $# -ge 2 ] || die "$1 needs a value (see --help)"
		case $1 in --root) root=$2 ;; *) source=$2 ;; esac
		shift
		;;
	--root=*) root=${1#*=} ;;
	--source=*) source=${1#*=} ;;
	--force) force=1 ;;
	--kvm-host) kvm_host=1 ;;
	-h | --help)
		usage
		exit 0
		;;
	*) die "unknown argument $1 (see --help)" ;;
	esac
	case $source in
	*.deb)
		[ -f "$source" ] || die "no such file: $source"
		# One path per line: a path may hold spaces.
		debs="$debs$(realpath "$source")
"
		source="file"
		;;
	auto | debian | ubuntu | firecracker | file) ;;
	*) die "unknown source $source (see --help)" ;;
	esac
	shift
done
[ -n "$root" ] || root=${HOME:?HOME is not set, use --root}/.config/micropod

# --- where the packages come from -----------------------------------------

distribution() {
	# shellcheck disable=SC1091 # read on the machine where it runs
	like=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-}" "${ID_LIKE:-}") || true
	case " $like " in
	*" ubuntu "*) echo ubuntu ;;
	*" debian "*) echo debian ;;
	*) die "this is neither Debian nor Ubuntu: use --source firecracker, or --source FILE.deb with a kernel package of one of them" ;;
	esac
}

# depends PACKAGE PATTERN: the packages it depends on that match.
depends() {
	LC_ALL=C apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null |
		sed -n 's/^[ |]*\(Pre\)\{0,1\}Depends: \([a-z0-9][^ :<>]*\).*/\2/p' | grep -E "$2" || true
}

update_lists() {
	[ "$(id -u)" = 0 ] || return 1
	say "reading the package lists (apt-get update)"
	apt-get -q -o Acquire::Retries=5 update >&2
}

# fetch PACKAGE...: into the current directory.
fetch() {
	say "fetching $*"
	# As root apt would change to a user that cannot write here, and warn.
	apt-get -q -o Acquire::Retries=5 -o APT::Sandbox::User=root download "$@" >&2
}

fetch_distribution() {
	need apt-get "use --source firecracker"
	need apt-cache
	need dpkg
	arch=$(dpkg --print-architecture)
	[ "$arch" = amd64 ] || die "MicroPod's guests are amd64 so far, this machine is $arch"
	case $1$kvm_host in
	debian) meta=linux-image-cloud-amd64 ;;
	debian1) meta=linux-image-amd64 ;;
	ubuntu) meta=linux-image-virtual ;;
	ubuntu1) meta=linux-image-generic ;;
	esac
	image=$(depends "$meta" '^linux-image-.*[0-9]\.[0-9]' | head -n 1)
	if [ -z "$image" ]; then
		update_lists || die "apt knows no $meta; run this once and try again: sudo apt-get update"
		image=$(depends "$meta" '^linux-image-.*[0-9]\.[0-9]' | head -n 1)
		[ -n "$image" ] || die "apt knows no $meta: check /etc/apt/sources.list, or use --source firecracker"
	fi
	modules=$(depends "$image" '^linux-(modules|binary)-.*[0-9]\.[0-9]')
	# shellcheck disable=SC2086 # a list of package names
	if ! (cd "$work/debs" && fetch $image $modules); then
		update_lists || die "could not fetch $image; if the package lists are old, run this once and try again: sudo apt-get update"
		# shellcheck disable=SC2086
		(cd "$work/debs" && fetch $image $modules) || die "could not fetch $image"
	fi
}

# --- from packages to ROOT/kernels -----------------------------------------

# prune_modules DIR: keeps what a guest can use. The names are those of the
# kernel's source tree and the same for every distribution.
prune_modules() {
	(
		cd "$1"
		# Links of an installed tree to the build machine.
		rm -f build source
		[ -d kernel ] || exit 0
		mkdir keep
		cd kernel
		# shellcheck disable=SC2086 # patterns
		for p in lib mm crypto arch/*/crypto arch/*/lib \
			fs/erofs fs/ext4 fs/jbd2 fs/mbcache.* fs/squashfs fs/overlayfs fs/fuse \
			fs/9p fs/netfs fs/fscache fs/binfmt_misc.* \
			drivers/virtio drivers/ptp drivers/pps drivers/nvdimm drivers/dax \
			drivers/block/virtio_blk.* drivers/block/loop.* drivers/block/nbd.* drivers/block/zram \
			drivers/char/hw_random drivers/char/virtio_console.* \
			drivers/net/virtio_net.* drivers/net/net_failover.* drivers/net/tun.* \
			drivers/net/tap.* drivers/net/veth.* drivers/net/dummy.* drivers/net/macvlan.* \
			drivers/net/ipvlan drivers/net/vxlan* drivers/net/geneve.* drivers/net/wireguard \
			drivers/net/ifb.* \
			net/core net/vmw_vsock net/9p net/bridge net/llc net/802 net/8021q net/netfilter \
			net/ipv4 net/ipv6 net/sched net/tls net/unix net/netlink net/xfrm \
			${kvm_host:+arch/*/kvm virt/lib drivers/crypto/ccp drivers/vhost}; do
			[ -e "$p" ] || continue # no such file, or nothing matched
			mkdir -p "../keep/$(dirname "$p")"
			mv "$p" "../keep/$p"
		done
		cd ..
		rm -rf kernel
		mv keep kernel
	)
}

# unpack_debs: fills $work/new from $work/debs and sets release.
unpack_debs() {
	need dpkg-deb "apt-get install dpkg"
	for deb in "$work"/debs/*.deb; do
		dpkg-deb -x "$deb" "$work/x" || die "$deb is no package that dpkg-deb can unpack"
	done
	set -- "$work"/x/boot/vmlinuz-*
	[ -f "$1" ] || die "there is no boot/vmlinuz-* in the package"
	[ $# = 1 ] || die "there is more than one kernel in the package"
	release=${1##*/vmlinuz-}
	[ "$(dd if="$1" bs=1 skip=514 count=4 2>/dev/null)" = HdrS ] || die "${1##*/} is no x86 kernel"
	mv "$1" "$work/new/vmlinuz"
	[ ! -f "$work/x/boot/config-$release" ] || mv "$work/x/boot/config-$release" "$work/new/config"
	for lib in "$work/x/lib" "$work/x/usr/lib"; do
		[ -d "$lib/modules/$release" ] || continue
		mkdir -p "$work/new/lib/modules"
		mv "$lib/modules/$release" "$work/new/lib/modules/"
		prune_modules "$work/new/lib/modules/$release"
	done
	[ -d "$work/new/lib" ] || say "note: the package holds no modules"
	kernel=vmlinuz
}

fetch_firecracker() {
	need curl "apt-get install curl"
	series=${MICROPOD_FIRECRACKER_CI:-v1.13}
	bucket=https://s3.amazonaws.com/spec.ccfc.min
	prefix=firecracker-ci/$series/x86_64/vmlinux-
	get='curl --proto =https --fail --silent --show-error --location --retry 3'
	$get "$bucket?list-type=2&prefix=$prefix" >"$work/list" ||
		die "could not list Firecracker's kernels: is the internet reachable? (--source debian uses the distribution's package)"
	key=$(grep -o "${prefix}[0-9][0-9.]*</Key>" "$work/list" | sed 's/<.*//' | sort -V | tail -n 1) || true
	[ -n "$key" ] || die "no kernel in Firecracker's CI series $series: try another with MICROPOD_FIRECRACKER_CI"
	say "fetching ${key##*/} of Firecracker's CI $series"
	$get --output "$work/new/vmlinux" "$bucket/$key" || die "could not fetch $key"
	[ "$(od -An -c -N4 "$work/new/vmlinux" | tr -d ' ')" = '177ELF' ] || die "what arrived as $key is no ELF kernel"
	$get --output "$work/new/config" "$bucket/$key.config" 2>/dev/null || rm -f "$work/new/config"
	release=$(LC_ALL=C grep -a -o -m 1 'Linux version [0-9][A-Za-z0-9._+~-]*' "$work/new/vmlinux" |
		head -n 1 | cut -d ' ' -f 3) || true
	[ -n "$release" ] || die "what arrived as $key names no Linux version"
	kernel=vmlinux
}

# --- the main story ---------------------------------------------------------

if [ -z "$force" ] && [ -s "$root/vmlinux" ]; then
	say "there is a kernel already: $root/vmlinux (--force replaces it)"
	exit 0
fi
[ ! -d "$root/vmlinux" ] || die "$root/vmlinux is a directory"

umask 077
mkdir -p "$root/kernels"
root=$(cd "$root" && pwd)
# What a run that was killed has left.
find "$root/kernels" -maxdepth 1 -name '.tmp-*' -mmin +1440 -exec rm -rf {} +
work=$(mktemp -d "$root/kernels/.tmp-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$work/debs" "$work/new"

[ "$source" != auto ] || source=$(distribution)
case $source in
debian | ubuntu)
	fetch_distribution "$source"
	unpack_debs
	;;
file)
	printf %s "$debs" | while IFS= read -r deb; do cp "$deb" "$work/debs/"; done
	unpack_debs
	;;
firecracker) fetch_firecracker ;;
esac

chmod -R u=rwX,go= "$work/new"
if [ -e "$root/kernels/$release" ]; then
	mv "$root/kernels/$release" "$work/old"
fi
mv "$work/new" "$root/kernels/$release"
ln -s "kernels/$release/$kernel" "$work/vmlinux"
mv -f "$work/vmlinux" "$root/vmlinux"
say "kernel $release is at $root/vmlinux ($(du -sh "$root/kernels/$release" | cut -f 1))"
