package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	busyboxPackage = "busybox-static"
	nginxPackage   = "nginx-light"
	pythonPackage  = "python3-minimal"
	searchPath     = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// build makes all images:
//
//	busybox  the applets, as hard links; users root and alice. Two layers, which
//	         all other images share.
//	nginx    nginx-light, run and logging as docker's image of it does.
//	python3  the small Python.
//	config   every field of an image configuration that means something at run
//	         time, and every kind of file and of change between layers.
//	zstd     config, its last layer compressed with zstd.
//	multi    an index: busybox for linux/amd64, and an arm64 image that cannot run.
func build(p packages) ([]named, error) {
	base, err := busyboxLayers(p)
	if err != nil {
		return nil, err
	}
	busybox, err := image(base, v1.Config{Cmd: []string{"sh"}, Env: []string{searchPath}})
	if err != nil {
		return nil, err
	}
	nginx, err := nginxImage(p, base)
	if err != nil {
		return nil, err
	}
	python, err := pythonImage(p, base)
	if err != nil {
		return nil, err
	}
	config, err := configImage(base, compression.GZip)
	if err != nil {
		return nil, err
	}
	zstd, err := configImage(base, compression.ZStd)
	if err != nil {
		return nil, err
	}
	multi, err := multiIndex(busybox)
	if err != nil {
		return nil, err
	}
	return []named{{name: "busybox", image: busybox}, {name: "nginx", image: nginx},
		{name: "python3", image: python}, {name: "config", image: config}, {name: "zstd", image: zstd}, {name: "multi", index: multi}}, nil
}

// image joins layers and a configuration.
func image(layers []v1.Layer, c v1.Config) (v1.Image, error) {
	return platformImage(layers, c, "amd64")
}

func platformImage(layers []v1.Layer, c v1.Config, arch string) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var adds []mutate.Addendum
	for i, l := range layers {
		media, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.Addendum{Layer: l, MediaType: media, History: v1.History{
			Created: v1.Time{Time: epoch()}, CreatedBy: fmt.Sprintf("test/images layer %d", i)}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Created, file.Architecture, file.OS, file.Config = v1.Time{Time: epoch()}, arch, "linux", c
	return mutate.ConfigFile(img, file)
}

// busyboxLayers: the file system with the applets, then the users.
func busyboxLayers(p packages) ([]v1.Layer, error) {
	specs, err := closure(busyboxPackage)
	if err != nil {
		return nil, err
	}
	files, err := p.fetch(specs)
	if err != nil {
		return nil, err
	}
	t := tree{}
	for _, f := range files {
		if err := addDeb(t, f); err != nil {
			return nil, err
		}
	}
	if err := addApplets(t); err != nil {
		return nil, err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		t.dir("usr/"+d, 0o755)
		t.symlink(d, "usr/"+d)
	}
	for _, d := range []string{"dev", "etc", "home", "mnt", "opt", "proc", "run", "sys", "var/log", "var/lib"} {
		t.dir(d, 0o755)
	}
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	t.dir("var/tmp", 0o1777)
	t.symlink("var/run", "/run")
	return layers(t, users())
}

func layers(trees ...tree) ([]v1.Layer, error) {
	var list []v1.Layer
	for _, t := range trees {
		l, err := t.layer(compression.GZip)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

// addApplets asks the program itself for its names.
func addApplets(t tree) error {
	const name = "usr/bin/busybox"
	dir, err := os.MkdirTemp("", "busybox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "busybox")
	if err := os.WriteFile(program, t[name].content, 0o700); err != nil {
		return err
	}
	out, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet = merged(applet); path.Dir(applet) != "." && t[applet].Header == nil {
			t.link(applet, name)
		}
	}
	return nil
}

func users() tree {
	t := tree{}
	t.file("etc/passwd", 0o644, `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
alice:x:1000:1000:Alice:/home/alice:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`)
	t.file("etc/group", 0o644, `root:x:0:
daemon:x:1:
wheel:x:10:root,alice
audio:x:29:alice
www-data:x:33:
video:x:44:
alice:x:1000:
nogroup:x:65534:
`)
	t.file("etc/shadow", 0o640, "root:*:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n").Gid = 42
	home := t.dir("home/alice", 0o755)
	home.Uid, home.Gid = 1000, 1000
	profile := t.file("home/alice/.profile", 0o644, "PS1='alice$ '\n")
	profile.Uid, profile.Gid = 1000, 1000
	t.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
	return t
}

// packageTree unpacks a package and all that it needs; libraries apart from
// the rest, so that there is more than one layer.
func packageTree(p packages, name string) (libraries, program tree, err error) {
	specs, err := closure(name)
	if err != nil {
		return nil, nil, err
	}
	files, err := p.fetch(specs)
	if err != nil {
		return nil, nil, err
	}
	libraries, program = tree{}, tree{}
	stem, _, _ := strings.Cut(name, "-") // nginx-light comes as nginx, nginx-common, …
	for _, f := range files {
		t := libraries
		if strings.HasPrefix(filepath.Base(f), stem) {
			t = program
		}
		if err := addDeb(t, f); err != nil {
			return nil, nil, err
		}
	}
	return libraries, program, nil
}

func nginxImage(p packages, base []v1.Layer) (v1.Image, error) {
	libraries, program, err := packageTree(p, nginxPackage)
	if err != nil {
		return nil, err
	}
	program.file("etc/nginx/conf.d/default.conf", 0o644, `server {
    listen 80 default_server;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
`)
	program.file("usr/share/nginx/html/index.html", 0o644,
		"<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n")
	program.dir("var/log/nginx", 0o755)
	program.symlink("var/log/nginx/access.log", "/dev/stdout")
	program.symlink("var/log/nginx/error.log", "/dev/stderr")
	program.dir("var/lib/nginx", 0o755)
	ls, err := layers(libraries, program)
	if err != nil {
		return nil, err
	}
	return image(append(base[:len(base):len(base)], ls...), v1.Config{
		Cmd:          []string{"nginx", "-g", "daemon off;"},
		Env:          []string{searchPath, "NGINX_PACKAGE=" + nginxPackage},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
		StopSignal:   "SIGQUIT",
		Labels:       map[string]string{"maintainer": "MicroPod tests"},
	})
}

func pythonImage(p packages, base []v1.Layer) (v1.Image, error) {
	libraries, program, err := packageTree(p, pythonPackage)
	if err != nil {
		return nil, err
	}
	ls, err := layers(libraries, program)
	if err != nil {
		return nil, err
	}
	return image(append(base[:len(base):len(base)], ls...), v1.Config{
		Cmd: []string{"python3"}, Env: []string{searchPath, "LANG=C.UTF-8"}})
}

// configEntry prints what a process can see of its configuration.
const configEntry = `#!/bin/sh
echo "args:$(for a; do printf ' [%s]' "$a"; done)"
echo "id: $(id -u) $(id -g) $(id -G)"
echo "cwd: $(pwd)"
echo "home: $HOME"
echo "greeting: $GREETING"
echo "empty: [$EMPTY] ${EMPTY+set}"
if [ "$1" = wait ]; then
	trap 'echo got USR1; exit 7' USR1
	echo waiting
	while :; do sleep 0.1; done
fi
`

func configImage(base []v1.Layer, c compression.Compression) (v1.Image, error) {
	lower, upper := lowerFiles(), upperFiles()
	ls, err := layers(lower)
	if err != nil {
		return nil, err
	}
	last, err := upper.layer(c)
	if err != nil {
		return nil, err
	}
	return image(append(append(base[:len(base):len(base)], ls...), last), v1.Config{
		User:         "alice",
		Env:          []string{searchPath, "GREETING=hello  world=1", "EMPTY="},
		Entrypoint:   []string{"/usr/local/bin/entry", "from entrypoint"},
		Cmd:          []string{"from", "cmd $HOME"},
		WorkingDir:   "/work/made",
		StopSignal:   "SIGUSR1",
		Volumes:      map[string]struct{}{"/data": {}},
		Labels:       map[string]string{"org.example.a": "1", "org.example.b": "two words"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"},
			Interval: 30 * time.Second, Timeout: 3 * time.Second, Retries: 3},
	})
}

// noise is content that does not compress, the same in every run.
func noise(n int) string {
	var b bytes.Buffer
	r := rand.NewChaCha8([32]byte{1})
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x\n", r.Uint64())
	}
	return b.String()[:n]
}

func lowerFiles() tree {
	t := tree{}
	t.file("usr/local/bin/entry", 0o755, configEntry)
	t.file("data/from-image", 0o644, "copied into the volume\n")
	for _, n := range []string{"kept", "removed", "replaced", "becomes-dir", "dir/a", "dir/b", "becomes-file/x",
		"opaque/old", "opaque/sub/old", "gone/deep/file", "again"} {
		t.file("opt/tree/"+n, 0o644, "lower "+n+"\n")
	}
	t.symlink("opt/tree/link", "kept")
	t.symlink("opt/tree/dangling", "/no/such/file")
	t.symlink("opt/tree/outside", "../../../../../../etc/passwd")
	t.file("opt/hard/one", 0o640, "one\n")
	t.link("opt/hard/two", "opt/hard/one")
	t.file("opt/hard/alone", 0o644, "alone\n")
	t.file("opt/mode/setuid", 0o4755, "#!/bin/sh\n")
	t.file("opt/mode/setgid", 0o2755, "#!/bin/sh\n").Gid = 29
	t.file("opt/mode/none", 0, "secret\n")
	t.dir("opt/mode/sticky", 0o1777)
	owned := t.file("opt/mode/owned", 0o600, "owned\n")
	owned.Uid, owned.Gid = 4_000_000, 4_000_001
	t.file("opt/mode/old", 0o644, "old\n").ModTime = time.Unix(-86400, 0).UTC()
	// cap_net_bind_service=ep, version 2 of struct vfs_cap_data.
	t.file("opt/xattr/capable", 0o755, "#!/bin/sh\n").PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	t.file("opt/xattr/user", 0o644, "user\n").PAXRecords = map[string]string{"SCHILY.xattr.user.note": "a note"}
	t.add(tar.Header{Typeflag: tar.TypeChar, Name: "opt/dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "")
	t.add(tar.Header{Typeflag: tar.TypeBlock, Name: "opt/dev/loop", Mode: 0o660, Devmajor: 7, Devminor: 0}, "")
	t.add(tar.Header{Typeflag: tar.TypeFifo, Name: "opt/dev/fifo", Mode: 0o644}, "")
	t.file("opt/names/with space", 0o644, "space\n")
	t.file("opt/names/grün-日本", 0o644, "utf-8\n")
	t.file("opt/names/-dash", 0o644, "dash\n")
	t.file("opt/names/"+strings.Repeat("n", 255), 0o644, "long\n")
	t.file("opt/names/"+strings.Repeat("deep/", 60)+"leaf", 0o644, "deep\n")
	t.file("opt/size/empty", 0o644, "")
	t.file("opt/size/zeros", 0o644, strings.Repeat("\x00", 1<<20))
	t.file("opt/size/noise", 0o644, noise(3<<20+1))
	return t
}

func upperFiles() tree {
	t := tree{}
	t.file("opt/tree/.wh.removed", 0, "")
	t.file("opt/tree/.wh.gone", 0, "")
	t.file("opt/tree/.wh.link", 0, "")
	t.file("opt/tree/replaced", 0o600, "upper replaced\n")
	t.file("opt/tree/becomes-dir/inside", 0o644, "upper inside\n")
	t.file("opt/tree/becomes-file", 0o644, "upper becomes-file\n")
	t.file("opt/tree/opaque/.wh..wh..opq", 0, "")
	t.file("opt/tree/opaque/new", 0o644, "upper new\n")
	// A whiteout acts on lower layers only: the new file stays.
	t.file("opt/tree/.wh.again", 0, "")
	t.file("opt/tree/again", 0o644, "upper again\n")
	t.file("opt/tree/dir/.wh.a", 0, "")
	t.file("opt/tree/dir/c", 0o644, "upper c\n")
	// The file of this link is in the layer below.
	t.link("opt/hard/across", "opt/hard/alone")
	t.dir("opt/mode/sticky", 0o700) // only its mode changes
	return t
}

// multiIndex has an image for another architecture first: whoever takes the
// first one that comes gets what cannot run.
func multiIndex(busybox v1.Image) (v1.ImageIndex, error) {
	t := tree{}
	t.file("wrong-architecture", 0o644, "this image is for arm64\n")
	ls, err := layers(t)
	if err != nil {
		return nil, err
	}
	arm, err := platformImage(ls, v1.Config{Cmd: []string{"/none"}}, "arm64")
	if err != nil {
		return nil, err
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: busybox, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
	), nil
}
