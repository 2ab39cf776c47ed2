package firecracker

import (
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"1.16.1":     "1.16.1",
		"v1.14.4":    "1.14.4",
		"1.17.0-dev": "1.17.0-dev",
		"Firecracker v1.12.1\n\n2026-11-24T04:06:08 [x:main] exiting\n": "1.12.1",
	} {
		if v, err := ParseVersion(in); err != nil || v.String() != want {
			t.Errorf("%q: %v, %v", in, v, err)
		}
	}
	for _, in := range []string{"", "1", "1.2", "1.2.3.4", "a.b.c", "1.-2.3", "1.2.99999999999", "QEMU emulator version 7.2.22",
		"1.2.3-\x1b[2J", "1.2.3-" + strings.Repeat("a", 99), "+1.2.3"} {
		if v, err := ParseVersion(in); err == nil {
			t.Errorf("%q: is %v", in, v)
		}
	}
}

func TestReleaseRules(t *testing.T) {
	const (
		rng, pci, jail = "entropy device", "CVE-2026-5747", "CVE-2026-1386"
	)
	for _, tt := range []struct {
		version   string
		supported bool
		holes     []string
	}{
		{"0.25.2", false, []string{jail, rng}},
		{"1.11.9", false, []string{jail, rng}},
		{"1.12.0", true, []string{jail, rng}},
		{"1.13.0", true, []string{pci, jail, rng}},
		{"1.13.1", true, []string{pci, jail, rng}},
		{"1.13.2", true, []string{pci, rng}},
		{"1.14.0", true, []string{pci, jail, rng}},
		{"1.14.1", true, []string{pci, rng}},
		{"1.14.3", true, []string{pci, rng}},
		{"1.14.4", true, nil},
		{"1.15.0", true, []string{pci, rng}},
		{"1.15.1", true, nil},
		{"1.16.0", true, nil},
		{"1.17.0-dev", true, nil},
		{"2.0.0", false, nil},
	} {
		v, err := ParseVersion(tt.version)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Supported(); (err == nil) != tt.supported {
			t.Errorf("%s: supported: %v", v, err)
		}
		all := strings.Join(v.Warnings(), "\n")
		for _, hole := range tt.holes {
			if !strings.Contains(all, hole) {
				t.Errorf("%s: no warning of %s", v, hole)
			}
		}
		if n := len(v.Warnings()); n != len(tt.holes) {
			t.Errorf("%s: %d warnings, want %d:\n%s", v, n, len(tt.holes), all)
		}
	}
}
