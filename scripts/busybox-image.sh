#!/bin/sh
# Makes a small real image, micropod/busybox:latest, from the distribution's
# busybox: one layer, as a docker archive for `micropod load`. No docker, no
# registry, no root.
set -eu

case ${1:-} in
'' | -*)
	echo "usage: scripts/busybox-image.sh FILE.tar" >&2
	exit 1
	;;
esac
out=$1
busybox=$(command -v busybox) || {
	echo "busybox-image: busybox is not installed (apt-get install busybox-static)" >&2
	exit 1
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

root=$tmp/root
mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/tmp" "$root/home"
chmod 755 "$root" && chmod 700 "$root/root" && chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

# The same input gives the same image: fixed order, owner and time.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -cf "$tmp/layer.tar" .
diff_id=$(sha256sum "$tmp/layer.tar" | cut -d ' ' -f 1)
cat >"$tmp/config.json" <<JSON
{"architecture":"$(dpkg --print-architecture 2>/dev/null || echo amd64)","os":"linux",
"config":{"Env":["PATH=/bin"],"Cmd":["sh"]},
"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
cat >"$tmp/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":["micropod/busybox:latest"],"Layers":["layer.tar"]}]
JSON
tar -C "$tmp" -cf "$out" manifest.json config.json layer.tar
