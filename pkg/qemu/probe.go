package qemu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

const (
	binaryName = "qemu-system-x86_64"
	// The first release whose microvm machine has ACPI and a second IO-APIC,
	// so room for more than eight devices.
	minMajor, minMinor = 6, 0

	accelKVM = "kvm"
	accelTCG = "tcg"
)

// host is what Probe looks at.
type host struct {
	arch    string
	cpuinfo string
	kvm     string
}

func thisHost() host {
	return host{arch: runtime.GOARCH, cpuinfo: "/proc/cpuinfo", kvm: "/dev/kvm"}
}

// Probe looks for QEMU and for hardware virtualization.
func (d *Driver) Probe(ctx context.Context) vmm.Availability {
	a := vmm.Availability{}
	if d.host.arch != "amd64" {
		a.Reason = "qemu: only x86-64 hosts are supported, this one is " + d.host.arch
		return a
	}
	binary, err := d.lookBinary()
	if err != nil {
		a.Reason = fmt.Sprintf("qemu: %v", err)
		a.Fix = "install QEMU (package qemu-system-x86)"
		return a
	}
	a.Binary = binary
	if a.Version, err = version(ctx, binary); err != nil {
		a.Reason = fmt.Sprintf("qemu: %v", err)
		a.Fix = "install a working QEMU (package qemu-system-x86)"
		return a
	}
	if !recent(a.Version) {
		a.Reason = fmt.Sprintf("qemu %s is too old", a.Version)
		a.Fix = fmt.Sprintf("install QEMU %d.%d or later", minMajor, minMinor)
		return a
	}
	a.OK = true
	accel, why, fix := d.host.accel()
	a.Accel, a.Fix = accel, fix
	if accel == accelKVM {
		a.Reason = "hardware virtualization: " + why
	} else {
		a.Reason = "software emulation, slow and no security boundary: " + why
	}
	return a
}

func (d *Driver) lookBinary() (string, error) {
	if d.binary != "" {
		return exec.LookPath(d.binary)
	}
	path, err := exec.LookPath(binaryName)
	if err != nil {
		return "", fmt.Errorf("%s is not on PATH", binaryName)
	}
	return path, nil
}

// accel picks the accelerator and says why. A /dev/kvm on a CPU that shows
// neither vmx nor svm is a paravirtual KVM, which does not boot stock kernels.
func (h host) accel() (accel, why, fix string) {
	flags, err := cpuFlags(h.cpuinfo)
	if err != nil {
		return accelTCG, err.Error(), ""
	}
	if !flags["vmx"] && !flags["svm"] {
		if _, err := os.Stat(h.kvm); err == nil {
			return accelTCG, "the CPU has neither vmx nor svm: " + h.kvm + " is a paravirtual KVM that cannot run stock kernels", ""
		}
		return accelTCG, "the CPU has neither vmx nor svm",
			"turn on virtualization in the firmware, or nested virtualization where this host is a VM"
	}
	fd, err := unix.Open(h.kvm, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fix := "load the module kvm_intel or kvm_amd"
		if err == unix.EACCES || err == unix.EPERM {
			fix = "give this user access to " + h.kvm + " (group kvm)"
		}
		return accelTCG, fmt.Sprintf("open %s: %v", h.kvm, err), fix
	}
	unix.Close(fd)
	return accelKVM, h.kvm + " works", ""
}

func cpuFlags(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	flags := make(map[string]bool)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), ":")
		if !ok || strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, f := range strings.Fields(value) {
			flags[f] = true
		}
		break // the first CPU speaks for all
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return flags, nil
}

var versionLine = regexp.MustCompile(`(?m)^QEMU emulator version ([0-9]+\.[0-9]+(?:\.[0-9]+)?)`)

func version(ctx context.Context, binary string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.WaitDelay = 10 * time.Second // for a child that keeps the pipe open
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w", binary, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s --version says nothing of QEMU", binary)
	}
	return string(m[1]), nil
}

func recent(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return false
	}
	return major > minMajor || major == minMajor && minor >= minMinor
}
