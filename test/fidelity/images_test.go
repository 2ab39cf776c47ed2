package fidelity

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// image is a configuration over the layers of one of the test images.
type image struct {
	name   string
	base   string // of the layout; "" for busybox
	config v1.Config
	more   []entry // one more layer
}

func imageName(name string) string { return "fidelity/" + name + ":1" }

func show() []string { return []string{"/probe", "show"} }

// images are all images, by name.
func images() []image {
	plain := v1.Config{Env: []string{searchPath}, Cmd: show()}
	with := func(change func(*v1.Config)) v1.Config {
		c := plain
		change(&c)
		return c
	}
	user := func(name string) v1.Config { return with(func(c *v1.Config) { c.User = name }) }
	workdir := func(dir, user string) v1.Config {
		return with(func(c *v1.Config) { c.WorkingDir, c.User = dir, user })
	}
	return []image{
		{name: "plain", config: plain},
		{name: "entrypoint", config: with(func(c *v1.Config) {
			c.Entrypoint, c.Cmd = append(show(), "from entrypoint"), []string{"from", "cmd $HOME"}
		})},
		{name: "shell", config: with(func(c *v1.Config) {
			c.Cmd = []string{"/bin/sh", "-c", `exec /probe show "$GREETING" "[$EMPTY]" a\ b`}
			c.Env = []string{searchPath, "GREETING=hello  world=1", "EMPTY="}
		})},
		{name: "alice", config: user("alice")},
		{name: "uid", config: user("1000")},
		{name: "stranger", config: user("4242")},
		{name: "group", config: user("alice:audio")},
		{name: "digits", config: user("1234")},
		{name: "environment", config: with(func(c *v1.Config) {
			c.Env = []string{"PATH=/custom:/bin", "HOME=/of/image", "HOSTNAME=image", "TERM=dumb", "A=1", "A=2", "UTF=größe"}
		})},
		{name: "bare", config: with(func(c *v1.Config) { c.Env = nil })},
		{name: "workdir", config: workdir("/work/made", "alice")},
		{name: "linked", config: workdir("/srv/link/../x", "")},
		{name: "relative", config: workdir("rel/dir", "")},
		{name: "volume", config: with(func(c *v1.Config) { c.Volumes = map[string]struct{}{"/data": {}} })},
		{name: "stop", config: with(func(c *v1.Config) {
			c.StopSignal, c.Cmd = "SIGUSR2", []string{"/probe", "wait", "7"}
		})},
		{name: "full", config: v1.Config{
			User: "alice:audio", Env: []string{searchPath, "A=b c"}, Entrypoint: []string{"/probe"}, Cmd: []string{"wait", "7"},
			WorkingDir: "/work/made", StopSignal: "SIGRTMIN+3", Labels: map[string]string{"a": "1", "b": "two words"},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
		}},
		{name: "links", config: plain, more: linkedFiles()},
		{name: "files", base: "config", config: plain, more: oddFiles()},
	}
}

// entry is a file of a layer.
type entry struct {
	tar.Header
	content string
}

func file(name string, mode int64, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content}
}

func dir(name string, mode int64, uid int) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: uid}, ""}
}

func link(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// common is a layer of all images: users, and commands that cannot be executed.
func common() []entry {
	data := file("data/private", 0o640, "of alice\n")
	data.Uid, data.Gid = 1000, 1000
	return []entry{
		file("etc/passwd", 0o644, `root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/sh
homeless:x:1001:1001::/no/such/home:/bin/sh
empty:x:1002:1002:::/bin/sh
1234:x:55:55:digits:/digits:/bin/sh
short:x:1003
`),
		file("etc/group", 0o644, `root:x:0:
wheel:x:10:root,alice
audio:x:29:alice
4321:x:44:
alice:x:1000:
many:x:1005:alice,empty,homeless
`),
		dir("bad", 0o755, 0), dir("srv", 0o755, 0), dir("opt", 0o755, 0), dir("opt/deep", 0o755, 0),
		file("bad/plain", 0o644, "#!/bin/sh\n"), file("bad/text", 0o755, "no program\n"), file("bad/interpreter", 0o755, "#!/no/such\n"),
		dir("bad/dir", 0o755, 0), dir("opt/deep/dir", 0o755, 0), link("srv/link", "../opt/deep/dir"),
		dir("data", 0o750, 1000), data, file("data/public", 0o644, "of root\n"),
	}
}

// linkedFiles puts links where the engine has files of its own.
func linkedFiles() []entry {
	return []entry{
		dir("opt/target", 0o755, 0), file("opt/target/hosts", 0o600, "hosts of the image\n"), file("opt/target/resolv.conf", 0o644, "resolv.conf of the image\n"),
		link("etc/hosts", "/opt/target/hosts"), link("etc/resolv.conf", "../opt/target/resolv.conf"),
		link("etc/hostname", "/no/such/file"), file("etc/mtab", 0o644, "mtab of the image\n"),
	}
}

// oddFiles are what the test image config has not.
func oddFiles() []entry {
	at := func(e entry, when time.Time) entry {
		e.ModTime = when
		return e
	}
	attr := file("opt/odd/attr", 0o644, "attr\n")
	attr.PAXRecords = map[string]string{"SCHILY.xattr.user.empty": "", "SCHILY.xattr.user.binary": "\x00\x01\xff"}
	device := entry{tar.Header{Typeflag: tar.TypeChar, Name: "opt/odd/device", Mode: 0o606, Devmajor: 300, Devminor: 70000, Uid: 7, Gid: 8}, ""}
	return []entry{
		dir("opt", 0o755, 0), dir("opt/odd", 0o755, 0),
		dir("./", 0o700, 1000), // what the root directory is, no layer says
		at(file("opt/odd/nanoseconds", 0o644, "ns\n"), time.Unix(1_600_000_000, 123456789)),
		at(file("opt/odd/future", 0o644, "2128\n"), time.Unix(5_000_000_000, 0)),
		at(file("opt/odd/epoch", 0o644, "0\n"), time.Unix(0, 0)),
		file("opt/odd/file", 0o644, "file\n"),
		file("opt/implied/parent/of/file", 0o644, "no entry names my directories\n"),
		attr, device, at(link("opt/odd/timed-link", "file"), time.Unix(1_500_000_000, 0)),
		at(entry{tar.Header{Typeflag: tar.TypeLink, Name: "opt/odd/hard", Linkname: "opt/odd/epoch", Mode: 0o644}, ""}, time.Unix(0, 0)),
		at(entry{tar.Header{Typeflag: tar.TypeLink, Name: "opt/odd/hard-link-to-link", Linkname: "opt/odd/timed-link", Mode: 0o777}, ""}, time.Unix(1_500_000_000, 0)),
	}
}

// writeImages writes all images to a docker archive.
func writeImages(t *testing.T, archive, from, probe string) {
	t.Helper()
	program, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	shared := []v1.Layer{pack(t, []entry{file("probe", 0o755, string(program))}), pack(t, common())}
	bases := layoutImages(t, from)
	all := map[name.Reference]v1.Image{}
	for _, i := range images() {
		layers := shared
		if i.more != nil {
			layers = append(shared[:len(shared):len(shared)], pack(t, i.more))
		}
		base := "busybox"
		if i.base != "" {
			base = i.base
		}
		img, err := mutate.AppendLayers(bases[base], layers...)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.Config(img, i.config); err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(imageName(i.name))
		if err != nil {
			t.Fatal(err)
		}
		all[tag] = img
	}
	if err := tarball.MultiRefWriteToFile(archive, all); err != nil {
		t.Fatal(err)
	}
}

// layoutImages are the images of an OCI layout by name.
func layoutImages(t *testing.T, dir string) map[string]v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		if !m.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		all[m.Annotations["org.opencontainers.image.ref.name"]] = img
	}
	return all
}

// pack makes a layer of entries, in their order.
func pack(t *testing.T, entries []entry) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Format, h.Size = tar.FormatPAX, int64(len(e.content))
		if h.Typeflag == tar.TypeDir {
			h.Name = strings.TrimSuffix(h.Name, "/") + "/"
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// writeFiles writes the files that command lines name.
func writeFiles(t *testing.T, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"env":          "  B=\"quoted\" # kept  \n# comment\nC=a=b\nPASSED\nNOT_THERE\n\nD=\n",
		"bad-env":      "NAME WITH BLANK=1\n",
		"seccomp.json": `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["ptrace","personality"],"action":"SCMP_ACT_ERRNO","errnoRet":26}]}`,
		"bad.json":     `{"defaultAction":"SCMP_ACT_NOPE"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
