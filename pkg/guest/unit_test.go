package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// tree makes files in a new directory and opens it as an image's root. A value
// that begins with "->" is a link.
func tree(t testing.TB, files map[string]string) (string, imageRoot) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.close)
	return dir, root
}

const passwd = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken:x:zz:1::/:\nalice:x:1000:1000::/home/alice:/bin/sh\n" +
	"4242:x:7:7::/seven:\nshort:x:5\nhuge:x:4294967296:0::/:\nminus:x:-1:0::/:\n1e3:x:9:9::/:\nbiggid:x:3:4294967296::/:\nempty:x:11:11:::\n"

const group = "root:x:0:\naudio:x:29:alice\nvideo:x:44:bob,alice\nalice:x:1000:\nbad:x:zz:alice\nhugegroup:x:4294967296:alice\n29:x:30:\n"

func TestResolve(t *testing.T) {
	_, root := tree(t, map[string]string{"etc/passwd": passwd, "etc/group": group})
	tests := []struct {
		user   string
		add    []string
		want   identity
		failed string
	}{
		{user: "", want: identity{0, 0, []int{0}, "/root"}},
		{user: "root", want: identity{0, 0, []int{0}, "/root"}},
		{user: "alice", want: identity{1000, 1000, []int{1000, 29, 44}, "/home/alice"}},
		{user: "alice:", want: identity{1000, 1000, []int{1000, 29, 44}, "/home/alice"}},
		{user: "1000", want: identity{1000, 1000, []int{1000, 29, 44}, "/home/alice"}},
		{user: "1000:1000", want: identity{1000, 1000, []int{1000}, "/home/alice"}},
		{user: "alice:audio", want: identity{1000, 29, []int{29}, "/home/alice"}},
		{user: "alice:29", want: identity{1000, 29, []int{29}, "/home/alice"}}, // digits are a gid
		{user: ":29", want: identity{0, 29, []int{29}, "/root"}},
		{user: "555", want: identity{555, 0, []int{0}, "/"}},
		{user: "4242", want: identity{4242, 0, []int{0}, "/"}}, // digits are a uid
		{user: "555:666", want: identity{555, 666, []int{666}, "/"}},
		{user: "empty", want: identity{11, 11, []int{11}, ""}},
		{user: "2147483647", want: identity{2147483647, 0, []int{0}, "/"}},
		{user: "alice:alice", add: []string{"video", "77", "1000"}, want: identity{1000, 1000, []int{1000, 44, 77}, "/home/alice"}},
		{user: "bob", failed: "no matching entries"},
		{user: "broken", failed: "no matching entries"},
		{user: "short", failed: "no matching entries"},
		{user: "alice:nobody", failed: "no matching entries"},
		{user: "alice", add: []string{"nobody"}, failed: "no matching entries"},
		{user: "2147483648", failed: "range"}, {user: "4294967296", failed: "range"},
		{user: "99999999999999999999", failed: "range"}, {user: "-1", failed: "range"}, {user: "0:-1", failed: "range"},
		{user: "0:4294967296", failed: "range"}, {user: "1e3", failed: "neither"}, {user: "0x0", failed: "neither"},
		{user: "huge", failed: "range"}, {user: "minus", failed: "range"}, {user: "biggid", failed: "range"},
		{user: "0:hugegroup", failed: "range"},
	}
	for _, tt := range tests {
		got, err := resolve(root, tt.user, tt.add)
		if tt.failed != "" {
			if err == nil || !strings.Contains(err.Error(), tt.failed) {
				t.Errorf("%q: %+v, %v; want an error with %q", tt.user, got, err, tt.failed)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q %v: %+v, %v; want %+v", tt.user, tt.add, got, err, tt.want)
		}
	}
}

// The image's files may be anything; none may hang, lead outside or cost memory.
func TestResolveHostile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("alice:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir, root := tree(t, map[string]string{
		"etc/passwd": "->" + outside, "etc/group": "->../../../../../../../.." + outside,
	})
	if who, err := resolve(root, "alice", nil); err == nil {
		t.Errorf("a link leads outside: %+v", who)
	}
	if who, err := resolve(root, "12", nil); err != nil || who.UID != 12 {
		t.Errorf("a number needs no file: %+v, %v", who, err)
	}
	replaceWith := func(make func(string) error) {
		t.Helper()
		p := filepath.Join(dir, "etc/passwd")
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
		if err := make(p); err != nil {
			t.Fatal(err)
		}
	}
	long := func(n int64) func(string) error {
		return func(p string) error {
			if err := os.WriteFile(p, []byte("x:x:1:1::/:\n"), 0o644); err != nil {
				return err
			}
			return os.Truncate(p, n)
		}
	}
	type hostile struct {
		make func(string) error
		want string
	}
	cases := map[string]hostile{
		"fifo":      {func(p string) error { return unix.Mkfifo(p, 0o644) }, "not a regular file"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o755) }, "not a regular file"},
		"2 GB":      {long(2 << 30), "too long"},
		"many lines": {func(p string) error {
			return os.WriteFile(p, []byte(strings.Repeat("x:x:1:1::/:\n", maxAccounts/11)), 0o644)
		}, "larger than"},
		"loop": {func(p string) error { return os.Symlink("passwd", p) }, "symbolic links"},
	}
	if os.Getuid() == 0 {
		cases["device"] = hostile{func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, "not a regular file"}
	}
	for name, c := range cases {
		replaceWith(c.make)
		if who, err := resolve(root, "alice", nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", name, who, err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "accounts"), []byte("alice:x:77:78::/in:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	replaceWith(func(p string) error { return os.Symlink("/accounts", p) })
	if who, err := resolve(root, "alice", nil); err != nil || who.UID != 77 {
		t.Errorf("a link inside: %+v, %v", who, err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add([]byte(passwd), []byte(group), "alice:audio")
	f.Add([]byte(":::::::\n:"), []byte(":,:,:,\n"), ":")
	f.Add([]byte{0, '\n', 0xff}, []byte{}, "0")
	dir, root := tree(f, map[string]string{"etc/passwd": "", "etc/group": ""})
	f.Fuzz(func(t *testing.T, p, g []byte, user string) {
		for name, b := range map[string][]byte{"passwd": p, "group": g} {
			if err := os.WriteFile(filepath.Join(dir, "etc", name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		who, err := resolve(root, user, nil)
		if err == nil && (outOfRange(who.UID) || outOfRange(who.GID) || slices.ContainsFunc(who.Groups, outOfRange)) {
			t.Fatalf("%q: %+v", user, who)
		}
	})
}

func TestLookup(t *testing.T) {
	dir, _ := tree(t, map[string]string{"a/plain": "", "b/prog": "", "b/plain": "", "c/prog": "", "d/prog/x": ""})
	for _, p := range []string{"b/prog", "b/plain", "c/prog"} {
		if err := os.Chmod(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(dir, "c"))
	at := func(parts ...string) string {
		for i, p := range parts {
			if p != "" && p != "." {
				parts[i] = filepath.Join(dir, p)
			}
		}
		return strings.Join(parts, ":")
	}
	tests := []struct {
		name, path, want string
		code             api.Code
	}{
		{"prog", at("a", "b", "c"), filepath.Join(dir, "b/prog"), ""},
		{"prog", at("d", "b"), filepath.Join(dir, "b/prog"), ""}, // d/prog is a directory
		{"plain", at("a", "b"), filepath.Join(dir, "b/plain"), ""},
		{"prog", at("a", ""), "./prog", ""},
		{"prog", at("."), "./prog", ""},
		{"./prog", "", "./prog", ""},
		{"../b/prog", "", "../b/prog", ""},
		{"plain", at("a"), "", api.CodeNotFound},
		{"nosuch", at("a", "b"), "", api.CodeNotFound},
		{"", at("a"), "", api.CodeNotFound},
		{"./nosuch", "", "", api.CodeNotFound},
		{"../a/plain", "", "", api.CodeNotExecutable},
		{"../a", "", "", api.CodeNotExecutable},
		{"./prog/x", "", "", api.CodeNotExecutable},
	}
	for _, tt := range tests {
		got, err := lookup(tt.name, tt.path)
		var e *api.Error
		errors.As(err, &e)
		if tt.code == "" && (err != nil || got != tt.want) || tt.code != "" && (e == nil || e.Code != tt.code) {
			t.Errorf("lookup(%q): %q, %v; want %q %s", tt.name, got, err, tt.want, tt.code)
		}
	}
}

func TestParseMountOptions(t *testing.T) {
	flags, data, err := parseMountOptions([]string{"nosuid", "noexec", "exec", "ro", "rw", "nodev", "size=64m", "mode=1777", "private"})
	if err != nil || flags != unix.MS_NOSUID|unix.MS_NODEV || strings.Join(data, ",") != "size=64m,mode=1777" {
		t.Errorf("%#x %v %v", flags, data, err)
	}
	for _, bad := range []string{"", "a,b", "a\x00"} {
		if _, _, err := parseMountOptions([]string{bad}); err == nil {
			t.Errorf("option %q", bad)
		}
	}
}

func TestContainerMount(t *testing.T) {
	tests := []struct {
		m    specs.Mount
		want guestMount
		ok   bool
	}{
		{specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs"}, guestMount{"tmpfs", "/t", "tmpfs", 0, "", false}, true},
		{specs.Mount{Destination: "/t", Type: "tmpfs", Source: "x", Options: []string{"mode=700"}}, guestMount{"x", "/t", "tmpfs", 0, "mode=700", false}, true},
		{specs.Mount{Destination: "/c", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "relatime"}}, guestMount{"cgroup", "/c", "cgroup2", unix.MS_RDONLY | unix.MS_RELATIME, "", false}, true},
		{specs.Mount{Destination: "/b", Type: "bind", Source: "/"}, guestMount{}, false},
		{specs.Mount{Destination: "/b", Type: "ext4", Source: "/dev/vda"}, guestMount{}, false},
		{specs.Mount{Destination: "/b", Type: "", Source: "/"}, guestMount{}, false},
	}
	for _, tt := range tests {
		got, err := containerMount(tt.m)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%+v: %+v, %v", tt.m, got, err)
		}
		if takes := takesMode(tt.m); takes != (tt.m.Type == "tmpfs" && tt.m.Options == nil) {
			t.Errorf("%+v takes the mode of what is below: %t", tt.m, takes)
		}
	}
}

func TestImageMount(t *testing.T) {
	got := firstPlace().imageMount(api.Root{Format: "erofs", Devices: []string{"/dev/vda", "/dev/vdb", "/dev/vdc"}})
	want := guestMount{"/dev/vda", imageDir, "erofs", unix.MS_RDONLY, "device=/dev/vdb,device=/dev/vdc", false}
	if got != want {
		t.Errorf("%+v", got)
	}
	if !strings.HasSuffix(firstPlace().overlayMount().data, "index=off,metacopy=off,redirect_dir=off") {
		t.Errorf("%+v", firstPlace().overlayMount())
	}
}

func TestCheckSetup(t *testing.T) {
	good := func() api.SetupRequest {
		return api.SetupRequest{Token: strings.Repeat("t", 32), Root: api.Root{Format: "erofs", Devices: []string{"/dev/vda"}}}
	}
	if err := checkSetup(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*api.SetupRequest){
		"no token":    func(r *api.SetupRequest) { r.Token = "" },
		"short token": func(r *api.SetupRequest) { r.Token = "abc" },
		"entropy":     func(r *api.SetupRequest) { r.Entropy = make([]byte, maxEntropy+1) },
		"format":      func(r *api.SetupRequest) { r.Root.Format = "xfs" },
		"no device":   func(r *api.SetupRequest) { r.Root.Devices = nil },
		"two of ext4": func(r *api.SetupRequest) {
			r.Root = api.Root{Format: "ext4", Devices: []string{"/dev/vda", "/dev/vdb"}}
		},
		"comma of nbd": func(r *api.SetupRequest) { r.Root.Devices = []string{"/dev/nbd0,x"} },
		"part of nbd":  func(r *api.SetupRequest) { r.Root.Devices = []string{"/dev/nbd0p1"} },
		"nbd":          func(r *api.SetupRequest) { r.Root.Writable = "/dev/nbd" },
		"comma":        func(r *api.SetupRequest) { r.Root.Devices = []string{"/dev/vda,x"} },
		"other device": func(r *api.SetupRequest) { r.Root.Devices = []string{"/dev/sda"} },
		"path":         func(r *api.SetupRequest) { r.Root.Writable = "/dev/vd/../x" },
	} {
		r := good()
		spoil(&r)
		if err := checkSetup(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/ipv4/conf/eth0.1/rp_filter": "net/ipv4/conf/eth0.1/rp_filter",
		"": "", "../x": "", "/etc/passwd": "", "a/../../x": "", "..x": "",
	} {
		got, err := sysctlPath(key)
		if (err == nil) != (want != "") || got != want {
			t.Errorf("%q: %q, %v", key, got, err)
		}
	}
}

func TestCaps(t *testing.T) {
	set, err := parseCaps(strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"))
	if err != nil || set != 0xa80425fb {
		t.Errorf("docker's default set is %#x, %v", set, err)
	}
	if n := len(strings.Fields(capNames)); n != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d capability names, the kernel's headers have %d", n, unix.CAP_LAST_CAP+1)
	}
	if _, err := parseCaps([]string{"CHOWN"}); err == nil {
		t.Error("CHOWN without CAP_")
	}
	for name, want := range map[string]int{"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME} {
		if got, err := parseRlimit(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestCgroupFiles(t *testing.T) {
	mem, swap, pids, quota, none := int64(64<<20), int64(96<<20), int64(100), int64(50000), int64(-1)
	shares := uint64(1024)
	got := cgroupFiles(&api.Resources{
		Memory: &specs.LinuxMemory{Limit: &mem, Swap: &swap}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU: &specs.LinuxCPU{Quota: &quota, Shares: &shares}, Unified: map[string]string{"memory.high": "1", "../x.y": "1"},
	})
	want := map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "pids.max": "100", "cpu.max": "50000 100000", "cpu.weight": "39", "memory.high": "1"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	got = cgroupFiles(&api.Resources{Memory: &specs.LinuxMemory{Limit: &none}, Pids: &specs.LinuxPids{Limit: &none}, CPU: &specs.LinuxCPU{Quota: &none}})
	if !reflect.DeepEqual(got, map[string]string{"memory.max": "max", "pids.max": "max", "cpu.max": "max 100000"}) {
		t.Errorf("%v", got)
	}
}

func TestFixRoot(t *testing.T) {
	canary, _ := tree(t, map[string]string{"etc/hosts": "canary\n", "mtab": "canary\n"})
	dir, root := tree(t, map[string]string{
		"dev": "->" + canary, "proc": "a file", "etc/mtab": "->" + canary + "/mtab", "etc/hosts": "->" + canary + "/etc/hosts",
		"etc/hostname/x": "a directory",
	})
	if err := fixRoot(dir); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"dev", "proc", "sys", "etc"} {
		st, err := os.Lstat(filepath.Join(dir, p))
		if err != nil || !st.IsDir() || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	if l, err := os.Readlink(filepath.Join(dir, "etc/mtab")); l != "/proc/mounts" {
		t.Errorf("mtab: %q, %v", l, err)
	}
	if err := root.ensureFile("/etc/hosts"); err != nil {
		t.Error(err)
	}
	if st, err := os.Lstat(filepath.Join(dir, "etc/hosts")); err != nil || !st.Mode().IsRegular() || st.Size() != 0 {
		t.Errorf("hosts: %v, %v", st, err)
	}
	if err := root.ensureFile("/etc/hostname"); err == nil {
		t.Error("a directory was replaced by a file")
	}
	for _, p := range []string{"etc/hosts", "mtab"} {
		if b, err := os.ReadFile(filepath.Join(canary, p)); string(b) != "canary\n" {
			t.Errorf("outside: %s holds %q, %v", p, b, err)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	dir, _ := tree(t, map[string]string{"link": "->made/by/link", "file": "", "loop": "->loop", "real/x": "", "to": "->real"})
	for name, ok := range map[string]bool{"a/b/c": true, "a/b/c/": true, "link/d": true, "real": true, "to/sub": true, "file": false, "file/x": false, "loop": false, "loop/x": false} {
		err := mkdirAll(dir + "/" + name)
		st, serr := os.Stat(filepath.Join(dir, name))
		if (err == nil) != ok || ok && (serr != nil || !st.IsDir()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []string{"made/by/link/d", "real/sub"} {
		if _, err := os.Lstat(filepath.Join(dir, p)); err != nil {
			t.Error(err)
		}
	}
}

func TestEtcFiles(t *testing.T) {
	r := api.StartRequest{ID: "x", Hostname: "box", Hosts: []api.Host{{Addr: "10.0.0.2", Names: []string{"box.example.org", "box"}}},
		DNS: api.DNS{Servers: []string{"192.0.2.1"}, Search: []string{"a", "b"}, Options: []string{"ndots:2"}}}
	files, err := writeEtcFiles(t.TempDir(), r)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/hostname":    "box\n",
		"/etc/resolv.conf": "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n",
		"/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.2\tbox.example.org box\n",
	} {
		if b, err := os.ReadFile(files[name]); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, spoil := range map[string]func(*api.StartRequest){
		"host name": func(r *api.StartRequest) { r.Hostname = "a\nb" }, "no host name": func(r *api.StartRequest) { r.Hostname = "" },
		"domain": func(r *api.StartRequest) { r.Domainname = "a b" }, "address": func(r *api.StartRequest) { r.Hosts[0].Addr = "1.2.3" },
		"name": func(r *api.StartRequest) { r.Hosts[0].Names = []string{"x\n6.6.6.6 bank"} }, "server": func(r *api.StartRequest) { r.DNS.Servers = []string{"1\noptions x"} },
	} {
		bad := r
		bad.Hosts = slices.Clone(r.Hosts)
		spoil(&bad)
		if err := checkNames(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFromHost(t *testing.T) {
	for cid, want := range map[uint32]bool{unix.VMADDR_CID_HOST: true, unix.VMADDR_CID_LOCAL: false, 3: false, unix.VMADDR_CID_ANY: false, unix.VMADDR_CID_HYPERVISOR: false} {
		if got := fromHost(&unix.SockaddrVM{CID: cid}); got != want {
			t.Errorf("cid %d: %v", cid, got)
		}
	}
}

func TestFindPort(t *testing.T) {
	dir, _ := tree(t, map[string]string{"vport1p0/name": "other\n", "vport2p1/name": "micropod.agent\n", "vport3p1/x": ""})
	if got := findPort(dir); got != "/dev/vport2p1" {
		t.Errorf("%q", got)
	}
	if got := findPort(filepath.Join(dir, "none")); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAdmit(t *testing.T) {
	a := newAgent(&console{w: os.Stderr}, nil)
	open := api.Open{Version: api.Version, Purpose: api.PurposeControl}
	if a.admit(open) == nil {
		t.Error("admitted before setup, with an empty token")
	}
	a.token = "secret"
	for token, ok := range map[string]bool{"secret": true, "": false, "secre": false, "secrets": false} {
		open.Token = token
		if err := a.admit(open); (err == nil) != ok {
			t.Errorf("token %q: %v", token, err)
		}
	}
	open.Token, open.Version = "secret", api.Version+1
	if a.admit(open) == nil {
		t.Error("another version")
	}
}

// The reaper hands each status to its own waiter, however fast children end.
func TestReaper(t *testing.T) {
	r := newReaper(false)
	var chans []<-chan syscall.WaitStatus
	for i := range 50 {
		pid, ch, err := r.start("/bin/sh", []string{"sh", "-c", "exit " + string(rune('0'+i%10))}, &syscall.ProcAttr{})
		if err != nil || pid <= 0 {
			t.Fatal(err)
		}
		chans = append(chans, ch)
	}
	for i, ch := range chans {
		if code, sig := exitCode(<-ch); code != i%10 || sig != 0 {
			t.Errorf("child %d: code %d, signal %d", i, code, sig)
		}
	}
	pid, ch, err := r.start("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.signal(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, sig := exitCode(<-ch); code != 143 || sig != 15 {
		t.Errorf("code %d, signal %d", code, sig)
	}
	if err := r.signal(pid, unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to the dead: %v", err)
	}
	if _, _, err := r.start("/no/such", []string{"x"}, &syscall.ProcAttr{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("start of nothing: %v", err)
	}
}

// A child's child becomes ours when its parent ends, and so does its status.
func TestReaperAdopts(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	r := newReaper(false)
	for _, deadFirst := range []bool{true, false} { // the child, before its parent
		in, ours, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		out, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		// Not at once: a shell would take the status.
		argv := []string{"sh", "-c", "sh -c 'sleep 0.3; exit 7' >/dev/null & echo $!; exec cat"}
		_, parent, err := r.start("/bin/sh", argv, &syscall.ProcAttr{Files: []uintptr{in.Fd(), theirs.Fd(), 2}})
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatal(err)
		}
		status := r.adopt(pid)
		for deadFirst && !isZombie(t, pid) {
			time.Sleep(10 * time.Millisecond)
		}
		for _, f := range []*os.File{in, ours, out, theirs} {
			f.Close()
		}
		<-parent
		r.settle(pid)
		if code, sig := exitCode(<-status); code != 7 || sig != 0 {
			t.Errorf("dead first %v: code %d, signal %d", deadFirst, code, sig)
		}
	}
	// One that somebody else collected: its end must not be waited for for ever.
	status := r.adopt(1)
	r.settle(1)
	if code, _ := exitCode(<-status); code != 137 {
		t.Errorf("a lost status is %d", code)
	}
	if _, err := r.pidfd(1); !errors.Is(err, unix.ESRCH) {
		t.Errorf("pidfd of a stranger: %v", err)
	}
}

func isZombie(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), ") Z ")
}

func TestContain(t *testing.T) {
	var b strings.Builder
	(&console{w: &b}).contain("test", func() { panic("boom") })
	if !strings.Contains(b.String(), "panic in test: boom") {
		t.Errorf("%q", b.String())
	}
}
