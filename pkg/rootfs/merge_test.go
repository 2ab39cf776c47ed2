package rootfs

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func mode(m int64) func(*tar.Header)       { return func(h *tar.Header) { h.Mode = m } }
func owner(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }
func xattr(k, v string) func(*tar.Header) {
	return func(h *tar.Header) {
		h.Format = tar.FormatPAX
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+k] = v
	}
}

func special(name string, typ byte, major, minor int64) file {
	return file{Header: tar.Header{Typeflag: typ, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}}
}

// mergeCases are layers and what they add up to, briefly.
var mergeCases = []struct {
	name   string
	layers [][]file
	want   []string
}{
	{"implicit parents are 0755 root and keep what a lower layer says",
		[][]file{{dir("tmp/").with(mode(0o1777)).with(owner(3, 4))}, {reg("tmp/x", "1"), reg("new/deep/y", "2")}},
		[]string{"new dir", "new/deep dir", "new/deep/y file 2", "tmp dir 1777 3:4", "tmp/x file 1"}},
	{"a path through a symlink of a lower layer lands where it leads",
		[][]file{{dir("usr/"), dir("usr/lib/"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"), symlink("up", "../../usr/./lib/")},
			{reg("lib/y", "1"), reg("abs/z", "2"), reg("up/w", "3")}},
		[]string{"abs -> /usr/lib", "lib -> usr/lib", "up -> ../../usr/./lib/", "usr dir", "usr/lib dir",
			"usr/lib/w file 3", "usr/lib/y file 1", "usr/lib/z file 2"}},
	{"a directory entry replaces a symlink",
		[][]file{{dir("usr/"), reg("usr/a", "1"), symlink("lib", "usr")}, {dir("lib/"), reg("lib/b", "2")}},
		[]string{"lib dir", "lib/b file 2", "usr dir", "usr/a file 1"}},
	{"a dangling symlink as parent makes its target",
		[][]file{{symlink("a", "b/c")}, {reg("a/x", "1")}},
		[]string{"a -> b/c", "b dir", "b/c dir", "b/c/x file 1"}},
	{"of duplicates the last wins",
		[][]file{{reg("a", "1"), reg("a", "2"), dir("d/"), reg("d/x", "1"), reg("d", "file"), symlink("s", "x"), dir("s/"), reg("./a", "3")}},
		[]string{"a file 3", "d file file", "s dir"}},
	{"a duplicate leaves the other name of a hard link alone",
		[][]file{{reg("a", "1"), link("b", "a"), reg("a", "2")}},
		[]string{"a file 2", "b file 1"}},
	{"an upper layer replaces one of two hard-linked names",
		[][]file{{reg("a", "1"), link("b", "a"), link("c", "b")}, {reg("a", "2")}},
		[]string{"a file 2", "b file 1 2 links with b", "c file 1 2 links with b"}},
	{"the target of a hard link is deleted above",
		[][]file{{reg("a", "1"), link("d/b", "a")}, {reg(".wh.a", "")}},
		[]string{"d dir", "d/b file 1"}},
	{"a hard link to a file of a lower layer, by clamped and linked paths",
		[][]file{{reg("usr/a", "1"), symlink("u", "usr")}, {link("b", "../../usr/a")}, {link("c", "/u/a")}},
		[]string{"b file 1 3 links with b", "c file 1 3 links with b", "u -> usr", "usr dir", "usr/a file 1 3 links with b"}},
	{"a hard link to a symlink is to the symlink",
		[][]file{{symlink("s", "nowhere"), link("t", "s")}},
		[]string{"s -> nowhere 2 links with s", "t -> nowhere 2 links with s"}},
	{"a hard link to itself changes nothing",
		[][]file{{reg("a", "1"), link("a", "a")}},
		[]string{"a file 1"}},
	{"a whiteout removes a file, a directory, a symlink but not its target",
		[][]file{{reg("f", "1"), reg("d/e/x", "2"), symlink("s", "d"), reg("keep", "3")}, {reg(".wh.f", ""), reg("d/.wh.e", ""), reg(".wh.s", "")}},
		[]string{"d dir", "keep file 3"}},
	{"a whiteout acts on lower layers only, wherever it stands",
		[][]file{{reg("f", "old"), reg("d/old", "1"), reg("g", "old")},
			{reg("f", "new"), reg(".wh.f", ""), reg("d/new", "2"), reg(".wh.d", ""), reg(".wh.g", ""), reg("g", "new")}},
		[]string{"d dir", "d/new file 2", "f file new", "g file new"}},
	{"a whiteout takes the attributes of a directory that is only implied",
		[][]file{{dir("d/").with(mode(0o700)).with(owner(5, 5)), reg("d/old", "1")}, {reg("d/new", "2"), reg(".wh.d", "")}},
		[]string{"d dir", "d/new file 2"}},
	{"a whiteout leaves a directory of this layer its attributes",
		[][]file{{reg("d/sub/old", "1")}, {dir("d/").with(mode(0o700)), dir("d/sub/").with(mode(0o711)), reg(".wh.d", "")}},
		[]string{"d dir 700", "d/sub dir 711"}},
	{"opaque hides the lower layers, wherever it stands",
		[][]file{{dir("d/").with(mode(0o750)), reg("d/a", "1"), reg("d/sub/b", "1")},
			{reg("d/a", "2"), reg("d/sub/c", "2"), reg("d/.wh..wh..opq", ""), reg("d/z", "2")}},
		[]string{"d dir 750", "d/a file 2", "d/sub dir", "d/sub/c file 2", "d/z file 2"}},
	{"opaque root",
		[][]file{{reg("a", "1"), dir("b/")}, {reg(".wh..wh..opq", ""), reg("c", "2")}},
		[]string{"c file 2"}},
	{"what a whiteout removed, a later layer makes anew",
		[][]file{{reg("d/a", "1")}, {reg(".wh.d", "")}, {reg("d/b", "2")}},
		[]string{"d dir", "d/b file 2"}},
	{"a whiteout of nothing, and bookkeeping of AUFS",
		[][]file{{reg("a", "1"), reg(".wh.zzz", ""), reg(".wh..wh.aufs", "x"), dir(".wh..wh.plnk/"), reg(".wh..wh.plnk/1.2", "x")}},
		[]string{"a file 1"}},
	{"names are clamped inside the root",
		[][]file{{reg("../../a", "1"), reg("/b", "2"), reg("c/../../d", "3"), reg("./e//f", "4"), link("../g", "../../../a")}},
		[]string{"a file 1 2 links with a", "b file 2", "d file 3", "e dir", "e/f file 4", "g file 1 2 links with a"}},
	{"the root is 0755 and root's",
		[][]file{{dir("./").with(mode(0o700)).with(owner(7, 7)), reg("a", "1")}},
		[]string{"a file 1"}},
	{"a directory over a directory keeps children and takes attributes",
		[][]file{{dir("d/").with(mode(0o700)), reg("d/a", "1")}, {dir("d/").with(mode(0o711)).with(owner(1, 2))}},
		[]string{"d dir 711 1:2", "d/a file 1"}},
	{"a file over a directory, a directory over a file",
		[][]file{{reg("d/a", "1"), reg("f", "1")}, {reg("d", "2"), dir("f/"), reg("f/x", "2")}},
		[]string{"d file 2", "f dir", "f/x file 2"}},
	{"device 0:0 is nothing, as overlayfs would show it",
		[][]file{{reg("a", "1"), reg("b", "1")}, {special("a", tar.TypeChar, 0, 0), special("null", tar.TypeChar, 1, 3)}},
		[]string{"b file 1", "null special 20000 103 600"}},
	{"devices and fifos",
		[][]file{{special("big", tar.TypeBlock, 4095, 1<<20-1), special("p", tar.TypeFifo, 0, 0), special("zero", tar.TypeBlock, 0, 0)}},
		[]string{"big special 60000 ffffffff 600", "p special 10000 0 600", "zero special 60000 0 600"}},
	{"the highest owner",
		[][]file{{reg("a", "1").with(owner(maxID, maxID))}},
		[]string{"a file 1 4294967294:4294967294"}},
	{"the same layer twice",
		[][]file{{reg("a", strings.Repeat("x", 5000))}, {reg(".wh.a", "")}, {reg("a", strings.Repeat("x", 5000))}},
		[]string{"a file c59d3c0480cc2d71"}},
	{"a symlink that is moved while files go through it",
		[][]file{{dir("a/"), dir("b/"), symlink("l", "a"), reg("l/x", "1"), symlink("l", "b"), reg("l/y", "2")}},
		[]string{"a dir", "a/x file 1", "b dir", "b/y file 2", "l -> b"}},
	{"a directory that becomes a file and a directory again",
		[][]file{{reg("d/x", "1"), reg("d", "file"), dir("d/"), reg("d/y", "2")}},
		[]string{"d dir", "d/y file 2"}},
	{"an absolute symlink below the root",
		[][]file{{dir("usr/"), symlink("n/abs", "/usr"), symlink("n/rel", "../usr")}, {reg("n/abs/a", "1"), reg("n/rel/b", "2")}},
		[]string{"n dir", "n/abs -> /usr", "n/rel -> ../usr", "usr dir", "usr/a file 1", "usr/b file 2"}},
	{"an empty layer", [][]file{{}}, nil},
}

func TestMerge(t *testing.T) {
	for _, tc := range mergeCases {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, Options{})
			var ids []string
			for _, files := range tc.layers {
				ids = append(ids, mustAdd(t, s, makeTar(t, files...)))
			}
			all := list(t, mustImage(t, s, EROFS, ids...))
			if got := briefs(all); !slices.Equal(got, tc.want) {
				t.Errorf("got:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
			if root := all["."]; root.mode != 0o040755 || root.uid != 0 || root.gid != 0 || root.xattrs != "" {
				t.Errorf("root: %v", root)
			}
			if ext := listExt4(t, mustImage(t, s, Ext4, ids...)); ext != nil {
				compare(t, "erofs", withoutDirLinks(all), "ext4", withoutDirLinks(ext))
			}
		})
	}
}

// withoutDirLinks drops what is in the way of a comparison between file
// systems: the number of links of directories, and of the root in ext4, which
// has lost+found.
func withoutDirLinks(all map[string]found) map[string]found {
	out := map[string]found{}
	for path, f := range all {
		if f.mode&0o170000 == 0o040000 {
			f.nlink = 0
		}
		out[path] = f
	}
	return out
}

func TestAttributesSurvive(t *testing.T) {
	at := func(sec, nsec int64) func(*tar.Header) {
		return func(h *tar.Header) { h.ModTime, h.Format = time.Unix(sec, nsec), tar.FormatPAX }
	}
	s := newStore(t, Options{})
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	id := mustAdd(t, s, makeTar(t,
		reg("negative", "").with(at(-5, 999)),
		reg("nano", "").with(at(1700000000, 123456789)),
		reg("y2128", "").with(at(5000000000, 1)),
		reg("cap", "x").with(mode(0o4755)).with(xattr("security.capability", caps)),
		reg("acl", "x").with(xattr("system.posix_acl_access", acl)),
		reg("user", "x").with(xattr("user.mime", "a\x00b")).with(xattr("user.empty", "")).with(xattr("trusted.t", "1")),
		reg("overlay", "x").with(xattr("trusted.overlay.opaque", "y")).with(xattr("user.overlay.redirect", "/etc")).
			with(xattr("bogus.ns", "x")).with(xattr("user.", "x")).with(xattr("system.other", "x")).with(xattr("system.posix_acl_access", "bad")).with(xattr("user.kept", "1")),
		dir("d/").with(xattr("user.dir", "1")).with(at(1600000000, 7)),
		reg("big", strings.Repeat("b", 10000)).with(xattr("user.long", strings.Repeat("v", 2500))),
		symlink("long", strings.Repeat("x/", 2047)),
		reg(strings.Repeat("n", 255), "longest name"),
		reg("latin-\xe9\xff", "not utf-8").with(func(h *tar.Header) { h.Format = tar.FormatGNU }),
	))
	all := list(t, mustImage(t, s, EROFS, id))
	for path, want := range map[string]string{
		"negative": "0.000000000 ", "nano": "1700000000.123456789 ", "y2128": "5000000000.000000001 ",
		"cap":     `0.000000000 security.capability="` + `\x01\x00\x00\x02\x00 ` + strings.Repeat(`\x00`, 14) + `" `,
		"user":    `0.000000000 trusted.t="1" user.empty="" user.mime="a\x00b" `,
		"overlay": `0.000000000 user.kept="1" `,
		"d":       `1600000000.000000007 user.dir="1" `,
	} {
		f := all[path]
		if got := fmt.Sprintf("%d.%09d %s", f.sec, f.nsec, f.xattrs); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if f := all["cap"]; f.mode != 0o104755 {
		t.Errorf("cap: mode %o", f.mode)
	}
	if f := all["long"]; len(f.content) != 4094 {
		t.Errorf("long symlink: %d bytes", len(f.content))
	}
	if ext := listExt4(t, mustImage(t, s, Ext4, id)); ext != nil {
		compare(t, "erofs", withoutDirLinks(all), "ext4", withoutDirLinks(ext))
	}
}
