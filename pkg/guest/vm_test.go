package guest_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/agent"
	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/guest"
	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/qemu"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/seccomp"
	"github.com/micropod/micropod/pkg/vmm"
)

const (
	testToken = "0123456789abcdef0123456789abcdef"
	bootLimit = 3 * time.Minute  // emulation on a busy machine
	lifeLimit = 20 * time.Minute // of a VM in which many containers run
)

// missing skips, or fails where everything is expected to be there.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "%s is not installed", name)
	}
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// bench is what every VM of the tests shares: kernel, initramfs, image disks.
type bench struct {
	kernel, initrd string
	noNBD          string // an initramfs without the module for disks that come later
	erofs, ext4    string
}

var sharedBench = sync.OnceValues(newBench)

func testBench(t testing.TB) *bench {
	t.Helper()
	if os.Getenv("MICROPOD_TEST_KERNEL") == "" {
		missing(t, "MICROPOD_TEST_KERNEL does not name a guest kernel")
	}
	for _, name := range []string{"qemu-system-x86_64", "busybox", "mkfs.erofs", "mkfs.ext4"} {
		tool(t, name)
	}
	b, err := sharedBench()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var benchDir string

func TestMain(m *testing.M) {
	if guest.IsAgent(os.Args) { // a container stage of a test in this process
		os.Exit(guest.Main(os.Args))
	}
	code := m.Run()
	if benchDir != "" {
		os.RemoveAll(benchDir)
	}
	os.Exit(code)
}

func newBench() (_ *bench, err error) {
	if benchDir, err = os.MkdirTemp("", "guest-test-"); err != nil {
		return nil, err
	}
	b := &bench{
		initrd: filepath.Join(benchDir, "initrd"),
		noNBD:  filepath.Join(benchDir, "initrd-without-nbd"),
		erofs:  filepath.Join(benchDir, "image.erofs"),
		ext4:   filepath.Join(benchDir, "image.ext4"),
	}
	k, err := kernel.Open(os.Getenv("MICROPOD_TEST_KERNEL"), filepath.Join(benchDir, "kernels"))
	if err != nil {
		return nil, err
	}
	b.kernel = k.Path
	if err := b.pack(k); err != nil {
		return nil, err
	}
	tree := filepath.Join(benchDir, "tree")
	if err := busyboxTree(tree); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"mkfs.erofs", b.erofs, tree},
		{"mkfs.ext4", "-q", "-O", "^has_journal", "-d", tree, b.ext4, "16M"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	return b, nil
}

// pack writes the initramfs: the agent of this tree and the kernel's modules.
func (b *bench) pack(k *kernel.Kernel) error {
	bin := filepath.Join(benchDir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/micropod/micropod/cmd/micropod-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	agentBytes, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	entries := []rootfs.InitEntry{entry("init", 0o755, agentBytes)}
	base := []kernel.Feature{kernel.VirtioMMIO, kernel.VirtioBlk, kernel.VirtioConsole, kernel.VirtioRNG, kernel.VirtioNet, kernel.EROFS, kernel.Ext4, kernel.Overlay}
	modules, err := moduleEntries(k, "modules", base...)
	if err != nil {
		return err
	}
	entries = append(entries, modules...)
	disk, err := moduleEntries(k, "modules/disk", kernel.NBD)
	if err != nil {
		return err
	}
	return errors.Join(writeInitramfs(b.noNBD, entries), writeInitramfs(b.initrd, append(entries, disk...)))
}

// moduleEntries are modules as they are, in the order of loading.
func moduleEntries(k *kernel.Kernel, dir string, features ...kernel.Feature) ([]rootfs.InitEntry, error) {
	mods, err := k.Modules(features...)
	if err != nil {
		return nil, err
	}
	var entries []rootfs.InitEntry
	for i, m := range mods {
		r, err := m.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry(fmt.Sprintf("%s/%02d-%s.ko", dir, i, m.Name), 0o644, data))
	}
	return entries, nil
}

func writeInitramfs(path string, entries []rootfs.InitEntry) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(rootfs.WriteInitramfs(f, entries), f.Close())
}

func entry(name string, mode os.FileMode, data []byte) rootfs.InitEntry {
	return rootfs.InitEntry{Name: name, Mode: mode, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// busyboxTree makes a small image that is unkind where an image may be: links
// where the guest mounts, and accounts with the odd names of the wild.
func busyboxTree(dir string) error {
	for _, d := range []string{"bin", "etc", "home/alice", "srv/real", "canary", "odd"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		return err
	}
	applets, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return err
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
				return err
			}
		}
	}
	files := map[string]string{
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n4242:x:7:7::/seven:/bin/sh\nnohome:x:1001:1001:::/bin/sh\n",
		"etc/group":   "root:x:0:\naudio:x:29:alice\nvideo:x:44:alice,bob\nalice:x:1000:\nwheel:x:10:root\n",
		"canary/file": "untouched\n", "odd/plain": "no program\n", "odd/noshebang": "echo hi\n",
		"odd/badinterp": "#!/no/such/interpreter\n",
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "odd/") && name != "odd/plain" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			return err
		}
	}
	for name, program := range map[string][]byte{"unshare": unshareProgram(0, 272), "unshare-x32": unshareProgram(0, 1<<30|272), "unshare-i386": unshareProgram(0x80, 310)} {
		if err := os.WriteFile(filepath.Join(dir, "odd", name), program, 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"etc/resolv.conf": "/canary/file", "etc/hosts": "../canary/file", "etc/mtab": "/canary/file",
		"proc": "/canary", "sys": "/canary", "dev": "/canary",
		"srv/link": "/srv/real", "srv/dangling": "/made/by/cwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// unshareProgram is an executable that asks for a new user namespace, through
// an interrupt (0: by syscall) and a number for the call, and ends with the errno.
func unshareProgram(interrupt byte, number uint32) []byte {
	const base, headers = 0x400000, 64 + 56
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, number)                               // mov eax, number
	code = append(code, 0xbb, 0, 0, 0, 0x10, 0xbf, 0, 0, 0, 0x10)                                // mov ebx and edi, CLONE_NEWUSER
	call := map[bool][]byte{true: {0x0f, 0x05}, false: {0xcd, interrupt}}[interrupt == 0]        // syscall, int
	code = append(append(code, call...), 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 231, 0, 0, 0, 0x0f, 0x05) // neg eax; mov edi, eax; exit_group
	size := uint64(headers + len(code))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		_ = binary.Write(&b, binary.LittleEndian, part) // a buffer takes everything
	}
	return b.Bytes()
}

// guestVM is a booted VM with its control connection.
type guestVM struct {
	t       testing.TB
	machine vmm.Machine
	client  *agent.Client
	sock    string
	console string
	ctx     context.Context
}

// bootVM boots a VM that has said hello and is not set up.
func bootVM(t testing.TB, disks ...vmm.Disk) *guestVM {
	t.Helper()
	return bootWith(t, func(*vmm.Config) {}, disks...)
}

// bootWith is bootVM with more in the VM's configuration.
func bootWith(t testing.TB, change func(*vmm.Config), disks ...vmm.Disk) *guestVM {
	t.Helper()
	b := testBench(t)
	dir, err := os.MkdirTemp("", "vm-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	t.Cleanup(cancel)
	vm := &guestVM{t: t, sock: filepath.Join(dir, "v.sock"), console: filepath.Join(dir, "console.log"), ctx: ctx}
	l, err := agent.Listen(vm.sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := vmm.Config{
		ID: "guesttest000", Kernel: b.kernel, Initrd: b.initrd,
		CPUs: 1, MemoryMiB: 192, Disks: disks,
		VsockPath: vm.sock, ConsolePath: vm.console, ConsoleLimit: 1 << 20, Dir: dir,
	}
	change(&c)
	vm.machine, err = qemu.New(qemu.Options{}).Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.machine.Kill() })
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(vm.console)
			t.Logf("console:\n%s", text)
		}
	})
	accept, stop := context.WithTimeout(ctx, bootLimit)
	go func() { // a VM that ends early must not cost the whole limit
		select {
		case <-vm.machine.Done():
			stop()
		case <-accept.Done():
		}
	}()
	defer stop()
	if vm.client, err = l.Accept(accept); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.client.Close() })
	return vm
}

// newVM boots a VM on the erofs image with a tmpfs above it.
func newVM(t testing.TB) *guestVM {
	t.Helper()
	vm := bootVM(t, vmm.Disk{Path: testBench(t).erofs, ReadOnly: true})
	for _, p := range vm.setup(api.Root{Format: "erofs", Devices: []string{"/dev/vda"}}).Phases {
		t.Logf("setup: %-10s %v", p.Name, p.At)
	}
	return vm
}

func (vm *guestVM) setup(root api.Root) api.SetupReply {
	vm.t.Helper()
	r, err := vm.client.Setup(vm.ctx, api.SetupRequest{
		Token: testToken, Now: time.Now(), Entropy: bytes.Repeat([]byte{7}, 64), Root: root,
		Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
	})
	if err != nil {
		vm.t.Fatal(err)
	}
	return r
}

// result is what a container left.
type result struct {
	stdout, stderr string
	exit           api.Exit
}

// start starts a container and connects its streams.
func (vm *guestVM) start(r api.StartRequest) (*agent.Stdio, error) {
	vm.t.Helper()
	stdio, err := agent.OpenStdio(vm.ctx, vm.sock, testToken, r.ID)
	if err != nil {
		vm.t.Fatal(err)
	}
	vm.t.Cleanup(func() { stdio.Close() })
	if _, err = vm.client.Start(vm.ctx, r); err != nil {
		stdio.Close()
	}
	return stdio, err
}

// wait collects output until the end, then takes the exit.
func (vm *guestVM) wait(s *agent.Stdio) result {
	vm.t.Helper()
	var out, errs strings.Builder
	for {
		stream, b, err := s.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			vm.t.Fatalf("read output: %v (so far %q %q)", err, out.String(), errs.String())
		}
		if stream == api.Stdout {
			out.Write(b)
		} else {
			errs.Write(b)
		}
	}
	e, ok := <-vm.client.Exits()
	if !ok {
		vm.t.Fatal("no exit came")
	}
	s.Close()
	return result{out.String(), errs.String(), e}
}

// run runs a container to its end.
func (vm *guestVM) run(r api.StartRequest) result {
	vm.t.Helper()
	s, err := vm.start(r)
	if err != nil {
		vm.t.Fatal(err)
	}
	return vm.wait(s)
}

// request is a container as docker would make it.
func request(args ...string) api.StartRequest {
	return api.StartRequest{ID: "c1", Spec: defaultSpec(args...), Hostname: "box"}
}

func sh(script string) api.StartRequest { return request("/bin/sh", "-c", script) }

// filtered gives r docker's default seccomp profile.
func filtered(r api.StartRequest) api.StartRequest {
	f, err := seccomp.Default().Filter(seccomp.Target{Capabilities: r.Spec.Process.Capabilities.Bounding})
	if err != nil {
		panic(err)
	}
	r.Seccomp = &api.Seccomp{Flags: f.Flags, Program: f.Program}
	return r
}

func defaultSpec(args ...string) *api.Spec {
	caps := strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")
	return &api.Spec{
		Version: specs.Version,
		Process: &api.SpecProcess{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &specs.Root{},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &api.SpecLinux{
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &api.Resources{},
		},
	}
}
