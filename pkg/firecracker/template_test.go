package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

func TestTemplateKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := vmm.Config{
		ID: "0123456789ab", Kernel: file("kernel", "k"), Initrd: file("initrd", "i"), CPUs: 1, MemoryMiB: 128,
		Disks: []vmm.Disk{{Path: "/a", ReadOnly: true}, {Path: "/b"}}, VsockPath: "/x/v.sock", Dir: "/x/vmm",
		NICs: []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500, Device: "mp-0"}},
	}
	binary, boot := file("firecracker", "f"), "boot"
	key := func(change func(*machine)) string {
		t.Helper()
		m := &machine{config: base, binary: binary, named: true}
		m.config.Disks, m.config.NICs = slices.Clone(base.Disks), slices.Clone(base.NICs)
		if change != nil {
			change(m)
		}
		k, err := templateKey(m, boot)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	want := key(nil)
	for name, change := range map[string]func(*machine){
		"id":        func(m *machine) { m.config.ID = "ba9876543210" },
		"disks":     func(m *machine) { m.config.Disks[0].Path = "/other" },
		"limits":    func(m *machine) { m.config.Disks[1].Limits.WriteOps = 100 },
		"places":    func(m *machine) { m.config.VsockPath, m.config.Dir, m.config.ConsolePath = "/z/v.sock", "/y", "/z" },
		"address":   func(m *machine) { m.config.NICs[0].MAC = "02:00:00:00:00:02" },
		"device":    func(m *machine) { m.config.NICs[0].Device = "mp-1" },
		"no device": func(m *machine) { m.config.NICs[0].Device = "" },
	} {
		if key(change) != want {
			t.Errorf("%s: another template", name)
		}
	}
	for name, change := range map[string]func(*machine){
		"memory":      func(m *machine) { m.config.MemoryMiB++ },
		"cpus":        func(m *machine) { m.config.CPUs++ },
		"fewer disks": func(m *machine) { m.config.Disks = m.config.Disks[:1] },
		"writable":    func(m *machine) { m.config.Disks[0].ReadOnly = false },
		"no network":  func(m *machine) { m.config.NICs = nil },
		"words":       func(m *machine) { m.config.Args = []string{"x"} },
		"jail":        func(m *machine) { m.jail = &jail{} },
		"kernel":      func(*machine) { file("kernel", "another") },
		"initrd":      func(*machine) { file("initrd", "another") },
		"firecracker": func(*machine) { file("firecracker", "another") },
		"host's boot": func(*machine) { boot = "another" },
	} {
		if key(change) == want {
			t.Errorf("%s: the same template", name)
		}
	}
}

// A snapshot must be a file that Firecracker made, and nothing else.
func TestTakeSnapshot(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"":              func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"hard link":     func(path string) error { return os.Link(filepath.Join(filepath.Dir(path), templateState), path) },
	} {
		from, to := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(from, templateState), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plant(filepath.Join(from, templateMemory)); err != nil {
			t.Fatal(err)
		}
		err := takeFiles(from, to, os.Geteuid())
		if name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), "no file that firecracker made")) {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(filepath.Join(to, templateMemory)); name == "" && (err != nil || info.Mode() != 0o400) {
			t.Errorf("%v, %v", info, err)
		}
	}
}

// TestSnapshotReleases: which releases can keep a guest of so much memory.
func TestSnapshotReleases(t *testing.T) {
	for _, test := range []struct {
		version string
		memory  int
		ok      bool
	}{
		{"1.12.0", 512, true}, {"1.12.1", 4096, false}, {"1.14.1", 4096, false}, {"1.14.2", 4096, true},
		{"1.15.1", 4096, true}, {"1.16.0", 512, false}, {"1.16.1", 512, true},
	} {
		v, err := ParseVersion(test.version)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.canKeep(test.memory); (err == nil) != test.ok {
			t.Errorf("%s with %d MiB: %v", test.version, test.memory, err)
		}
	}
}

// Whatever of going on from a template Firecracker refuses, the VM may boot
// still, and others of its kind do not try again.
func TestGoOnRefused(t *testing.T) {
	for _, step := range []string{"/snapshot/load", "/drives/vda", "/vm"} {
		_, api, _ := newAPI(t, func(method, path string, _ []byte) string {
			if path == step {
				return "refused"
			}
			return ""
		})
		store := template.Store{Dir: t.TempDir()}
		if err := os.Mkdir(filepath.Join(store.Dir, "key.state"), 0o700); err != nil {
			t.Fatal(err)
		}
		m := &machine{api: api, origin: &origin{store: store, key: "key"}, config: vmm.Config{
			Disks: []vmm.Disk{{Limits: vmm.DiskLimits{WriteOps: 1}}}, VsockPath: filepath.Join(t.TempDir(), "v"),
		}}
		if err := os.WriteFile(m.config.VsockPath, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := m.load(t.Context())
		if err == nil {
			err = m.resume(t.Context())
		}
		if !errors.Is(err, template.ErrUnusable) {
			t.Errorf("%s: %v", step, err)
		}
		if left, _ := filepath.Glob(filepath.Join(store.Dir, "*")); len(left) != 1 || filepath.Base(left[0]) != "key.failed" {
			t.Errorf("%s: left %v", step, left)
		}
	}
}
