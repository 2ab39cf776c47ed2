package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

const (
	// probeTimeout bounds `firecracker --version` when the context does not.
	probeTimeout = 30 * time.Second
	// kvmGetAPIVersion is KVM_GET_API_VERSION of linux/kvm.h.
	kvmGetAPIVersion = 0xAE00
	kvmAPIVersion    = 12
	downloadHint     = "run scripts/download-firecracker.sh"
)

// Probe says whether Firecracker can run here. All problems are told at once.
func (d *Driver) Probe(ctx context.Context) vmm.Availability {
	a := vmm.Availability{Accel: "kvm"}
	var problems []*problem
	binary, err := d.lookup()
	var v Version
	if err == nil {
		a.Binary = binary
		v, err = versionOf(ctx, binary)
	}
	if err == nil {
		a.Version = v.String()
		err = supported(v)
	}
	if err != nil {
		problems = append(problems, asProblem(err))
	}
	if p := d.host.check(); p != nil {
		problems = append(problems, asProblem(p))
	}
	wall, err := d.probeJail(ctx, binary, v)
	if err != nil {
		problems = append(problems, asProblem(err))
	}
	if len(problems) > 0 {
		a.Reason, a.Fix = join(problems)
		return a
	}
	a.OK = true
	a.Reason = fmt.Sprintf("firecracker %s and %s are usable; %s", v, d.host.kvm, wall)
	if w := v.Warnings(); len(w) > 0 {
		a.Reason = fmt.Sprintf("firecracker %s works but has known holes: %s; %s", v, strings.Join(w, "; "), wall)
		a.Fix = fmt.Sprintf("%s to get %s", downloadHint, recommended().line())
	}
	return a
}

// supported is v.Supported as a problem.
func supported(v Version) error {
	if err := v.Supported(); err != nil {
		return &problem{err.Error(), fmt.Sprintf("%s to get %s", downloadHint, recommended().line())}
	}
	return nil
}

func join(problems []*problem) (reason, fix string) {
	var reasons, fixes []string
	for _, p := range problems {
		reasons = append(reasons, p.reason)
		if p.fix != "" {
			fixes = append(fixes, p.fix)
		}
	}
	return strings.Join(reasons, "; "), strings.Join(fixes, "; ")
}

// lookup finds the program. The error says where it looked.
func (d *Driver) lookup() (string, error) {
	name, where := d.o.Binary, d.o.Binary
	if name == "" {
		name, where = "firecracker", "PATH "+os.Getenv("PATH")
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		reason := "firecracker binary not available: looked in " + where
		if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) {
			reason += ": " + err.Error()
		}
		return "", &problem{reason, downloadHint}
	}
	return path, nil
}

// versionOf runs the program with --version. What it prints is bounded.
func versionOf(ctx context.Context, binary string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := vmm.CloseOnExec(); err != nil {
		return Version{}, err
	}
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.WaitDelay = 10 * time.Second // for a child that keeps the pipe open
	out := &tail{max: 4 << 10, head: true}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return Version{}, ctx.Err() // says nothing about the program
		}
		return Version{}, &problem{fmt.Sprintf("%s --version: %v", binary, err), downloadHint}
	}
	v, err := ParseVersion(out.String())
	if err != nil {
		return v, &problem{fmt.Sprintf("%s --version: %v", binary, err), downloadHint}
	}
	return v, nil
}

// host is what the driver needs of the machine; tests point it elsewhere.
type host struct {
	kvm        string
	cpuinfo    string
	apiVersion func(*os.File) (int, error)

	// What a jail needs.
	root         bool // we are it
	capabilities func() (uint64, error)
	etc, proc    string
	run          string // directory of what belongs to the whole host
}

func thisHost() host {
	return host{
		kvm: "/dev/kvm", cpuinfo: "/proc/cpuinfo", apiVersion: kvmVersion,
		root: os.Geteuid() == 0, capabilities: capabilities, etc: "/etc", proc: "/proc", run: "/run/micropod",
	}
}

func kvmVersion(f *os.File) (int, error) {
	return unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
}

// check returns a problem, or nil when KVM is usable.
func (h host) check() error {
	if runtime.GOARCH != "amd64" {
		return &problem{"the firecracker driver knows amd64 only, this is " + runtime.GOARCH, ""}
	}
	f, err := os.OpenFile(h.kvm, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return &problem{fmt.Sprintf("no %s: this machine offers no hardware virtualization", h.kvm),
			"turn on virtualization in the firmware or the hypervisor, then modprobe kvm_intel or kvm_amd"}
	case errors.Is(err, fs.ErrPermission):
		return &problem{fmt.Sprintf("no permission to read and write %s", h.kvm),
			"add yourself to its group: sudo usermod -aG kvm $USER, then log in again"}
	case err != nil:
		return &problem{err.Error(), ""}
	}
	defer f.Close()
	if v, err := h.apiVersion(f); err != nil {
		return &problem{fmt.Sprintf("%s does not answer as KVM: %v", h.kvm, err), ""}
	} else if v != kvmAPIVersion {
		return &problem{fmt.Sprintf("%s has API version %d, not %d", h.kvm, v, kvmAPIVersion), ""}
	}
	if ok, err := hasVirtFlags(h.cpuinfo); err != nil {
		return &problem{fmt.Sprintf("read the CPU's flags: %v", err), ""}
	} else if !ok {
		return &problem{fmt.Sprintf("%s is there, but the CPU shows neither vmx nor svm: such a KVM boots no ordinary kernel", h.kvm),
			"turn on (nested) virtualization in the firmware or the hypervisor, or use QEMU"}
	}
	return nil
}

// hasVirtFlags reports whether cpuinfo's first flags line holds vmx or svm.
func hasVirtFlags(cpuinfo string) (bool, error) {
	f, err := os.Open(cpuinfo)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(value) {
			if flag == "vmx" || flag == "svm" {
				return true, nil
			}
		}
		return false, nil
	}
	return false, lines.Err()
}
