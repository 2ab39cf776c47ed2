package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

func TestProbe(t *testing.T) {
	noKVM := func(d *Driver) { d.host.kvm += "-none" }
	for _, tt := range []struct {
		name, mode string
		change     func(*Driver)
		ok         bool
		reason     []string
		fix        string
	}{
		{"good", "v1.16.1", nil, true, []string{"firecracker 1.16.1 and", "are usable"}, ""},
		{"holes", "v1.12.1", nil, true, []string{"works but has known holes", "CVE-2026-1386"}, "run scripts/download-firecracker.sh to get 1.16"},
		{"too old", "v1.11.0", nil, false, []string{"firecracker 1.11.0 is too old"}, "scripts/download-firecracker.sh"},
		{"other API", "v2.0.0", nil, false, []string{"another API"}, "scripts/download-firecracker.sh"},
		{"no kvm", "ok", noKVM, false, []string{"no hardware virtualization"}, "turn on virtualization"},
		{"old and no kvm", "v1.11.0", noKVM, false, []string{"too old", "; no "}, "; turn on"},
		{"garbage", "garbage", nil, false, []string{"--version: not a Firecracker version"}, "scripts/download-firecracker.sh"},
		{"broken", "broken", nil, false, []string{"--version: exit status 1"}, "scripts/download-firecracker.sh"},
		{"paravirtual", "ok", func(d *Driver) { writeFile(t, d.host.cpuinfo, "flags : fpu vme vmxx\n") }, false, []string{"neither vmx nor svm"}, "QEMU"},
		{"no cpuinfo", "ok", func(d *Driver) { d.host.cpuinfo += "-none" }, false, []string{"CPU's flags"}, ""},
		{"no answer", "ok", func(d *Driver) { d.host.apiVersion = kvmVersion }, false, []string{"does not answer as KVM"}, ""},
		{"other kvm", "ok", func(d *Driver) { d.host.apiVersion = func(*os.File) (int, error) { return 13, nil } }, false, []string{"API version 13"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t, tt.mode)
			if tt.change != nil {
				tt.change(d)
			}
			a := d.Probe(context.Background())
			if a.OK != tt.ok || a.Accel != "kvm" || a.Binary != d.o.Binary {
				t.Errorf("%+v", a)
			}
			for _, want := range tt.reason {
				if !strings.Contains(a.Reason, want) {
					t.Errorf("reason %q: does not say %q", a.Reason, want)
				}
			}
			if !strings.Contains(a.Fix, tt.fix) || (tt.fix == "") != (a.Fix == "") {
				t.Errorf("fix %q, want %q", a.Fix, tt.fix)
			}
			if strings.Contains(a.Reason+a.Fix, "\n") {
				t.Errorf("more than one line: %q %q", a.Reason, a.Fix)
			}
		})
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNoBinary(t *testing.T) {
	empty := t.TempDir()
	t.Setenv("PATH", empty)
	for _, o := range []Options{{}, {Binary: filepath.Join(empty, "fc")}} {
		d := New(o)
		a := d.Probe(context.Background())
		if a.OK || a.Binary != "" || !strings.HasPrefix(a.Reason, "firecracker binary not available: looked in ") ||
			!strings.Contains(a.Reason, empty) || !strings.Contains(a.Fix, "run scripts/download-firecracker.sh") {
			t.Errorf("%+v", a)
		}
		_, err := d.Start(context.Background(), setup(t))
		if !errors.Is(err, vmm.ErrUnavailable) || !strings.Contains(err.Error(), "firecracker binary not available: looked in") ||
			!strings.Contains(err.Error(), "scripts/download-firecracker.sh") {
			t.Errorf("%v", err)
		}
	}
}

func TestStartWithoutKVM(t *testing.T) {
	d := newDriver(t, "ok")
	d.host.kvm += "-none"
	if _, err := d.Start(context.Background(), setup(t)); !errors.Is(err, vmm.ErrUnavailable) || !strings.Contains(err.Error(), "hardware virtualization") {
		t.Errorf("%v", err)
	}
}

func TestNoPermissionForKVM(t *testing.T) {
	if unix.Geteuid() == 0 {
		t.Skip("root may open everything")
	}
	d := newDriver(t, "ok")
	if err := os.Chmod(d.host.kvm, 0o400); err != nil {
		t.Fatal(err)
	}
	if a := d.Probe(context.Background()); a.OK || !strings.Contains(a.Fix, "usermod -aG kvm") {
		t.Errorf("%+v", a)
	}
}
