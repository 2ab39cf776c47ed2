package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAccel(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "processor\t: 0\nflags\t\t: fpu vme svm_lock vmxnet\nprocessor\t: 1\nflags\t\t: svm\n")
	amd := write("amd", "processor\t: 0\nflags\t\t: fpu svm vme\n")
	intel := write("intel", "flags\t\t: fpu vmx\nvmx flags\t: vnmi\n")
	kvm, none := write("kvm", ""), filepath.Join(dir, "none")
	readOnly := filepath.Join(dir, "dir") // cannot be opened for writing, not even by root
	if err := os.Mkdir(readOnly, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, cpuinfo, kvm string
		accel, why         string
	}{
		{"amd", amd, kvm, accelKVM, "works"},
		{"intel", intel, kvm, accelKVM, "works"},
		{"paravirtual kvm", plain, kvm, accelTCG, "paravirtual"},
		{"nothing", plain, none, accelTCG, "neither vmx nor svm"},
		{"no module", amd, none, accelTCG, "no such file"},
		{"no permission", amd, readOnly, accelTCG, unix.EISDIR.Error()},
		{"no cpuinfo", none, kvm, accelTCG, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			accel, why, _ := host{cpuinfo: test.cpuinfo, kvm: test.kvm}.accel()
			if accel != test.accel || !strings.Contains(why, test.why) {
				t.Errorf("%s, %q; want %s, %q", accel, why, test.accel, test.why)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name, binary string
		ok           bool
		version      string
		reason       string
	}{
		{"missing", filepath.Join(dir, "missing"), false, "", "no such file"},
		{"old", script("old", "echo 'QEMU emulator version 5.2.0 (Debian)'"), false, "5.2.0", "too old"},
		{"new", script("new", "echo 'QEMU emulator version 10.1.3'"), true, "10.1.3", ""},
		{"short", script("short", "echo 'QEMU emulator version 8.0 (x)'"), true, "8.0", ""},
		{"other program", script("other", "echo hello"), false, "", "says nothing of QEMU"},
		{"broken", script("broken", "exit 3"), false, "", "exit status 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := New(Options{Binary: test.binary}).Probe(t.Context())
			if a.OK != test.ok || a.Version != test.version || !strings.Contains(a.Reason, test.reason) || a.Reason == "" {
				t.Errorf("%+v", a)
			}
			if !a.OK && a.Fix == "" {
				t.Error("no fix given")
			}
		})
	}
}

func TestTSC(t *testing.T) {
	m := readTSC()
	if now := readTSC(); now.ticks <= m.ticks || now.at.Before(m.at) {
		t.Errorf("%+v, then %+v", m, now)
	}
	// The same counter, measured twice: the readings agree if each is right.
	a, b := m.khz(), readTSC().khz()
	if diff := a - b; a < 100_000 || diff > a/1000 || -diff > a/1000 {
		t.Errorf("%d kHz, then %d kHz", a, b)
	}
}
