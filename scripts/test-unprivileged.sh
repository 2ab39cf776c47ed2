#!/bin/sh
# Runs the scripts that boot VMs once more, as a user without any privilege and
# with the binary that make build made. Only root can become that user; for
# everybody else make test has run them without privilege already.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exit 0
: "${MICROPOD_TEST_KERNEL:?is set by make test}" "${MICROPOD_TEST_IMAGES:?is set by make test}"

user=65534 # nobody: no home, no group, no files
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"

# What an unprivileged user can read: this tree may lie where it cannot.
CGO_ENABLED=0 go test -c -o "$dir/cmd.test" ./cmd/micropod
cp micropod "$dir/"
mkdir "$dir/cmd" "$dir/tmp"
cp -R cmd/micropod/testdata "$dir/cmd/"
cp -R "$(dirname "$MICROPOD_TEST_KERNEL")" "$dir/kernel"
cp -R "$MICROPOD_TEST_IMAGES" "$dir/images"
chmod -R a+rX "$dir"
chown "$user:$user" "$dir/tmp"

cd "$dir/cmd"
exec_as_user() {
	setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
		env -i PATH="$PATH" HOME="$dir/tmp" TMPDIR="$dir/tmp" LANG="${LANG:-C}" \
		MICROPOD_TEST_REQUIRE=1 \
		MICROPOD_TEST_BINARY="$dir/micropod" \
		MICROPOD_TEST_KERNEL="$dir/kernel/vmlinux" \
		MICROPOD_TEST_IMAGES="$dir/images" \
		"$@"
}
exec_as_user "$dir/cmd.test" -test.run '^TestVM$' -test.timeout 60m
