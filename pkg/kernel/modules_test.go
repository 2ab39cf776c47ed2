package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testRelease = "6.9.0-test"

// openWith opens a fake kernel that has the given files beside it; names that
// begin with "M/" are in its modules directory.
func openWith(t *testing.T, content string, tree map[string]string) (*Kernel, string) {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"vmlinux": string(vmlinux(testRelease, 100)) + content}
	for name, body := range tree {
		if rest, ok := strings.CutPrefix(name, "M/"); ok {
			name = filepath.Join("lib/modules", testRelease, rest)
		}
		all[name] = body
	}
	files(t, dir, all)
	k, err := Open(filepath.Join(dir, "vmlinux"), filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func names(mods []Module) (s []string) {
	for _, m := range mods {
		s = append(s, m.Name)
	}
	return s
}

func TestModulesOrder(t *testing.T) {
	erofs := string(module("name=erofs\x00depends=libcrc32c,netfs\x00"))
	libcrc := string(module("softdep=pre: crc32c\x00depends=\x00"))
	plain := string(module("depends=\x00"))
	for name, c := range map[string]struct {
		tree map[string]string
		ask  []Feature
		want string
	}{
		"dependencies first, each once": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko":         erofs,
				"M/kernel/lib/libcrc32c.ko":    libcrc,
				"M/kernel/fs/netfs.ko":         string(module("depends=libcrc32c\x00")),
				"M/kernel/fs/overlay.ko":       string(module("depends=netfs\x00")),
				"M/kernel/crypto/unrelated.ko": plain,
			},
			ask:  []Feature{Overlay, EROFS, Overlay},
			want: "libcrc32c netfs overlay erofs",
		},
		"built in ones are left out": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko": erofs,
				"M/kernel/fs/netfs.ko": plain,
				"M/modules.builtin":    "kernel/lib/libcrc32c.ko\nkernel/fs/ext4/ext4.ko\n",
			},
			ask:  []Feature{Ext4, EROFS},
			want: "netfs erofs",
		},
		"hyphens and underscores": {
			tree: map[string]string{
				"M/kernel/drivers/virtio-rng.ko": string(module("depends=rng-core\x00")),
				"M/kernel/drivers/rng_core.ko":   plain,
			},
			ask:  []Feature{VirtioRNG},
			want: "rng_core virtio_rng",
		},
		"soft dependency by name": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko": erofs, "M/kernel/fs/netfs.ko": plain, "M/a/libcrc32c.ko": libcrc,
				"M/a/crc32c.ko": plain,
			},
			ask:  []Feature{EROFS},
			want: "crc32c libcrc32c netfs erofs",
		},
		"soft dependency by alias": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko": erofs, "M/kernel/fs/netfs.ko": plain, "M/a/libcrc32c.ko": libcrc,
				"M/a/crc32c-intel.ko": plain, "M/modules.alias": "# comment\nalias crc32c crc32c_intel\n",
			},
			ask:  []Feature{EROFS},
			want: "crc32c_intel libcrc32c netfs erofs",
		},
		"soft dependency that is built in": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko": erofs, "M/kernel/fs/netfs.ko": plain, "M/a/libcrc32c.ko": libcrc,
				"M/a/crc32c-intel.ko": plain, "M/modules.alias": "alias crc32c crc32c_intel\n",
				"M/modules.builtin":         "kernel/crypto/crc32c_sw.ko\n",
				"M/modules.builtin.modinfo": "crc32c_sw.license=GPL\x00crc32c_sw.alias=crc32c\x00",
			},
			ask:  []Feature{EROFS},
			want: "libcrc32c netfs erofs",
		},
		"soft dependency without aliases": {
			tree: map[string]string{
				"M/kernel/fs/ext4.ko":      string(module("softdep=pre: crypto-crc32c post: crc32c_late\x00")),
				"M/kernel/crc32c_late.ko":  plain,
				"M/a/crc32c_generic.ko":    plain,
				"M/a/crc32c_generic.ko.md": "not a module",
			},
			ask:  []Feature{Ext4},
			want: "crc32c_generic ext4 crc32c_late",
		},
		"soft dependency that cannot be met": {
			tree: map[string]string{
				"M/kernel/fs/ext4.ko": string(module("softdep=pre: broken absent\x00")),
				"M/a/broken.ko":       string(module("softdep=pre: fine\x00depends=absent\x00")),
				"M/a/fine.ko":         plain,
			},
			ask:  []Feature{Ext4},
			want: "ext4",
		},
		"a cycle ends": {
			tree: map[string]string{
				"M/kernel/fs/ext4.ko": string(module("depends=jbd2\x00")),
				"M/kernel/fs/jbd2.ko": string(module("depends=ext4\x00")),
			},
			ask:  []Feature{Ext4},
			want: "jbd2 ext4",
		},
		"compressed": {
			tree: map[string]string{
				"M/kernel/fs/erofs.ko.xz":      string(packXz(t, []byte(erofs), "--lzma2=dict=1MiB")),
				"M/kernel/lib/libcrc32c.ko.gz": string(packGzip(t, []byte(libcrc))),
				"M/kernel/fs/netfs.ko.zst":     string(packZstd(t, []byte(plain))),
			},
			ask:  []Feature{EROFS},
			want: "libcrc32c netfs erofs",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := openWith(t, "", c.tree)
			mods, err := k.Modules(c.ask...)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(names(mods), " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, m := range mods {
				r, err := m.Open()
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(r)
				if err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) {
					t.Errorf("%s: %q %v", m.Name, b, err)
				}
				r.Close()
			}
		})
	}
}

func TestUpdatesWin(t *testing.T) {
	k, dir := openWith(t, "", map[string]string{
		"M/kernel/fs/ext4.ko":    string(module("depends=absent\x00")),
		"M/updates/dkms/ext4.ko": string(module("depends=\x00")),
	})
	mods, err := k.Modules(Ext4)
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "lib/modules", testRelease, "updates/dkms/ext4.ko")
	if len(mods) != 1 || mods[0].Path != want {
		t.Errorf("%v, want %s", mods, want)
	}
}

func TestSupportEvidence(t *testing.T) {
	ikconfig := ikconfigStart[:8] + string(packGzip(t, []byte("CONFIG_EROFS_FS=y\nCONFIG_EXT4_FS=m\n")))
	ko := string(module("depends=\x00"))
	for name, c := range map[string]struct {
		content string
		tree    map[string]string
		want    map[Feature]Support
		reason  string
	}{
		"nothing": {want: map[Feature]Support{EROFS: Missing, ACPI: Missing}},
		"strings": {
			content: "\x00z_erofs\x00ACPI: Interpreter enabled\x00",
			want:    map[Feature]Support{EROFS: Builtin, ACPI: Builtin, Ext4: Missing},
		},
		"a configuration silences strings": {
			content: "\x00erofs\x00",
			tree:    map[string]string{"config": "CONFIG_OVERLAY_FS=y\n# CONFIG_EROFS_FS is not set\n"},
			want:    map[Feature]Support{EROFS: Missing, Overlay: Builtin},
		},
		"configuration by release": {
			tree: map[string]string{"config-" + testRelease: "CONFIG_ACPI=y\n"},
			want: map[Feature]Support{ACPI: Builtin},
		},
		"the configuration inside wins": {
			content: ikconfig,
			tree:    map[string]string{"config": "CONFIG_OVERLAY_FS=y\n"},
			want:    map[Feature]Support{EROFS: Builtin, Overlay: Missing, Ext4: Missing},
		},
		"a module without its file": {
			tree:   map[string]string{"config": "CONFIG_EXT4_FS=m\n"},
			want:   map[Feature]Support{Ext4: Missing},
			reason: "its file is not there",
		},
		"a module without its dependency": {
			tree: map[string]string{"M/kernel/ext4.ko": string(module("depends=jbd2\x00")),
				"config": "CONFIG_EXT4_FS=m\n"},
			want:   map[Feature]Support{Ext4: Missing},
			reason: "ext4 needs it: module jbd2 is not in",
		},
		"a broken module": {
			tree:   map[string]string{"M/kernel/ext4.ko": "\x7fELF and nothing more"},
			want:   map[Feature]Support{Ext4: Missing},
			reason: "ext4.ko",
		},
		"module and builtin lists": {
			content: "\x00erofs\x00",
			tree:    map[string]string{"M/modules.builtin": "kernel/fs/ext4/ext4.ko\n", "M/kernel/overlay.ko": ko},
			want:    map[Feature]Support{Ext4: Builtin, Overlay: ViaModule, EROFS: Missing},
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := openWith(t, c.content, c.tree)
			for f, want := range c.want {
				if got := k.Support(f); got != want {
					t.Errorf("%s: %s, want %s", f, got, want)
				}
			}
			if c.reason == "" {
				return
			}
			if _, err := k.Modules(Ext4); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("error %q, want %q", err, c.reason)
			}
		})
	}
}

// MicroPod's EROFS disks have several devices: 5.15 cannot mount them.
func TestOldEROFSIsMissing(t *testing.T) {
	for release, want := range map[string]Support{"5.10.217": Missing, "5.16.0": Builtin, "6.1.0": Builtin, "4.19.0": Missing} {
		dir := t.TempDir()
		files(t, dir, map[string]string{"vmlinux": string(vmlinux(release, 10)), "config": "CONFIG_EROFS_FS=y\n"})
		k, err := Open(filepath.Join(dir, "vmlinux"), filepath.Join(dir, "cache"))
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Support(EROFS); got != want {
			t.Errorf("%s: %s, want %s", release, got, want)
		}
	}
}

func TestModuleTooLarge(t *testing.T) {
	huge := packGzip(t, append(module("depends=\x00"), make([]byte, maxModule)...))
	path := filepath.Join(t.TempDir(), "x.ko.gz")
	if err := os.WriteFile(path, huge, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Module{Name: "x", Path: path}.Open()
	if err == nil {
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
	}
	if !errors.Is(err, ErrFormat) {
		t.Errorf("a module of more than 64 MiB: %v", err)
	}
}

func FuzzModule(f *testing.F) {
	ko := module("name=x\x00depends=a,b-c\x00softdep=pre: crc32c post: d\x00")
	f.Add(ko)
	f.Add(packGzip(f, ko))
	f.Add(packZstd(f, ko))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := moduleReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		elf, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return
		}
		info, err := parseModinfo(elf)
		if err != nil {
			return
		}
		for _, n := range slices.Concat(info.depends, info.pre, info.post) {
			if n == "" || strings.Contains(n, "-") {
				t.Errorf("name %q", n)
			}
		}
	})
}
