#!/bin/sh
# Installs firecracker and jailer from Firecracker's GitHub release.
#
# The archive is checked against the release's own .sha256.txt file, and against
# --sha256 where that is given. Only the two programs are taken out of it; they
# replace older ones in one step each.
set -eu

usage() {
	cat <<'EOF'
usage: scripts/download-firecracker.sh [--version V] [--dir DIR] [--sha256 HEX] [--file FILE.tgz]

  --version V      release to install (default: 1.16.1; MicroPod works with 1.12 and
                   newer, safe are 1.14.4, 1.15.1 and newer)
  --dir DIR        where to put firecracker and jailer (default: ~/.local/bin)
  --sha256 HEX     what the archive's checksum must be, too
  --file FILE.tgz  an archive that is already here, with FILE.tgz.sha256.txt beside
                   it or with --sha256: nothing is downloaded
  --help

No root is needed. MICROPOD_FIRECRACKER_URL names a mirror of the releases.
EOF
}

say() { printf '%s\n' "$*" >&2; }
die() {
	say "download-firecracker: $*"
	exit 1
}

version=1.16.1
dir=
sha256=
file=
while [ $# -gt 0 ]; do
	case $1 in
	--version | --dir | --sha256 | --file)
		[ $# -ge 2 ] || die "$1 needs a value (see --help)"
		name=$1 value=$2
		shift
		;;
	--version=* | --dir=* | --sha256=* | --file=*)
		name=${1%%=*} value=${1#*=}
		;;
	-h | --help)
		usage
		exit 0
		;;
	*) die "unknown argument $1 (see --help)" ;;
	esac
	[ -n "$value" ] || die "$name is empty (see --help)"
	case $name in
	--version) version=${value#v} ;;
	--dir) dir=$value ;;
	--sha256) sha256=$value ;;
	--file) file=$value ;;
	esac
	shift
done

case $version in
*[!0-9A-Za-z.-]* | .* | -*) die "not a version: $version" ;;
[0-9]*.[0-9]*.[0-9]*) ;;
*) die "not a version: $version (it looks like 1.16.1)" ;;
esac
is_sha256() {
	[ ${#1} -eq 64 ] || return 1
	case $1 in *[!0-9a-f]*) return 1 ;; esac
}
[ -z "$sha256" ] || is_sha256 "$sha256" || die "--sha256 is not a checksum: 64 characters of 0-9 and a-f"
[ -n "$dir" ] || dir=${HOME:?HOME is not set, use --dir}/.local/bin

[ "$(uname -s)" = Linux ] || die "Firecracker runs on Linux only, this is $(uname -s)"
arch=$(uname -m)
case $arch in
x86_64 | aarch64) ;;
*) die "there is no Firecracker for $arch, only for x86_64 and aarch64" ;;
esac
for tool in tar gzip sha256sum mktemp; do
	command -v $tool >/dev/null 2>&1 || die "$tool is not installed"
done

work=$(mktemp -d)
new=
trap 'rm -rf "$work" ${new:+"$new"}' EXIT
trap 'exit 130' INT TERM HUP

# --- the archive ------------------------------------------------------------

fetch() { # URL FILE
	if command -v curl >/dev/null 2>&1; then
		curl -fsSL --connect-timeout 20 --retry 2 -o "$2" "$1"
	elif command -v wget >/dev/null 2>&1; then
		wget -q -T 20 -O "$2" "$1"
	else
		die "neither curl nor wget is installed"
	fi
}

name=firecracker-v$version-$arch
archive=$work/$name.tgz
if [ -n "$file" ]; then
	[ -f "$file" ] || die "no such file: $file"
	cp -- "$file" "$archive"
	[ ! -f "$file.sha256.txt" ] || cp -- "$file.sha256.txt" "$archive.sha256.txt"
else
	url=${MICROPOD_FIRECRACKER_URL:-https://github.com/firecracker-microvm/firecracker/releases/download}/v$version/$name.tgz
	for suffix in '.sha256.txt' ''; do
		fetch "$url$suffix" "$archive$suffix" || die "cannot download $url$suffix
  Is there such a release, and does this machine reach the internet?
  Otherwise fetch that file and $name.tgz elsewhere and run: $0 --version $version --file $name.tgz"
	done
fi

found=$(sha256sum <"$archive" | cut -d' ' -f1)
if [ -f "$archive.sha256.txt" ]; then
	published=$(head -c 4096 "$archive.sha256.txt" | head -n 1 | cut -d' ' -f1)
	is_sha256 "$published" || die "the checksum file of $name.tgz holds no checksum"
	[ "$found" = "$published" ] || die "$name.tgz is damaged: its sha256 is $found, published is $published"
elif [ -z "$sha256" ]; then
	die "no checksum for $file: put $file.sha256.txt beside it or give --sha256"
fi
[ -z "$sha256" ] || [ "$found" = "$sha256" ] || die "$name.tgz has the sha256 $found, not $sha256"

# --- the programs -----------------------------------------------------------

for program in firecracker jailer; do
	member=release-v$version-$arch/$program-v$version-$arch
	tar -xzOf "$archive" "$member" >"$work/$program" 2>/dev/null ||
		die "$name.tgz holds no $member: is it release $version for $arch?"
	chmod 0755 "$work/$program"
	said=$("$work/$program" --version 2>&1 | head -n 1) || true
	case $said in
	*" v$version" | *" v$version "*) ;;
	*) die "$member does not run as version $version: $said" ;;
	esac
done
mkdir -p -- "$dir" || die "cannot make $dir"
for program in firecracker jailer; do
	new=$dir/.$program.$$
	if ! cp -- "$work/$program" "$new" || ! mv -f -- "$new" "$dir/$program"; then
		die "cannot write $dir/$program"
	fi
	new=
done

say "installed firecracker and jailer $version in $dir"
case ":$PATH:" in
*":$dir:"*) ;;
*) say "$dir is not on your PATH; add it: export PATH=\"$dir:\$PATH\"" ;;
esac
