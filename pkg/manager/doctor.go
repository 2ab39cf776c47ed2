package manager

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/rootfs"
)

// Doctor looks at everything that running a container needs. It changes
// nothing. The main job can run if every required check is ok.
func (m *Manager) Doctor(ctx context.Context) []Check {
	checks := []Check{m.checkRoot()}
	k, kernelCheck := m.checkKernel()
	checks = append(checks, kernelCheck)
	if k != nil {
		checks = append(checks, checkFeatures(k)...)
	}
	checks = append(checks, m.checkAgent(), checkBridge(), m.checkDefaultNetwork(), checkPing())
	return append(checks, m.checkVMMs(ctx)...)
}

func (m *Manager) checkRoot() Check {
	c := Check{Name: "root directory", Required: true, Detail: m.state.Root()}
	if err := unix.Access(m.state.Root(), unix.W_OK|unix.X_OK); err != nil {
		c.Detail, c.Fix = fmt.Sprintf("%s: %v", m.state.Root(), err), "choose another one with --root or MICROPOD_ROOT"
		return c
	}
	c.OK = true
	var fs unix.Statfs_t
	if err := unix.Statfs(m.state.Root(), &fs); err == nil {
		free := fs.Bavail * uint64(fs.Bsize)
		c.Detail = fmt.Sprintf("%s, %d MiB free", m.state.Root(), free>>20)
		if free < 256<<20 {
			c.OK, c.Fix = false, "make room there, or choose another one with --root or MICROPOD_ROOT"
		}
	}
	return c
}

func (m *Manager) checkKernel() (*kernel.Kernel, Check) {
	c := Check{Name: "guest kernel", Required: true}
	k, err := m.kernel("")
	if err != nil {
		c.Detail = err.Error()
		if fix := "run scripts/download-kernel.sh"; !strings.Contains(c.Detail, fix) { // it may say so itself
			c.Fix = fix
		}
		return nil, c
	}
	c.OK, c.Detail = true, fmt.Sprintf("%s (Linux %s)", filepath.Join(m.state.Root(), fileKernel), k.Release)
	return k, c
}

// checkFeatures looks at what the guest kernel can do.
func checkFeatures(k *kernel.Kernel) []Check {
	c := Check{Name: "guest kernel drivers", Required: true, OK: true}
	var missing []string
	for _, f := range []kernel.Feature{kernel.VirtioMMIO, kernel.VirtioBlk, kernel.Ext4, kernel.Overlay} {
		if k.Support(f) == kernel.Missing {
			missing = append(missing, string(f))
		}
	}
	if k.Support(kernel.VirtioConsole) == kernel.Missing && k.Support(kernel.VirtioVsock) == kernel.Missing {
		missing = append(missing, "virtio_console or virtio_vsock")
	}
	c.Detail = "disks, overlay and the agent's channel"
	if len(missing) > 0 {
		c.OK, c.Detail = false, "missing: "+strings.Join(missing, ", ")
		c.Fix = "run scripts/download-kernel.sh for a kernel that has them"
	}
	disk := Check{Name: "image disks", OK: true, Detail: "EROFS"}
	if diskFormat(k) == rootfs.Ext4 {
		disk.Detail = "ext4, one disk for each image: the kernel has no EROFS, so layers are not shared"
	}
	return []Check{c, disk}
}

func (m *Manager) checkAgent() Check {
	c := Check{Name: "guest agent", Required: true}
	files, err := m.o.Agent()
	if err != nil {
		c.Detail, c.Fix = err.Error(), "build micropod with make build, or name the agent with MICROPOD_AGENT"
		return c
	}
	var size int64
	for _, f := range files {
		size += f.Size
	}
	c.OK, c.Detail = true, fmt.Sprintf("%d KiB in the initramfs", size>>10)
	return c
}

// checkVMMs looks at every driver; one usable VMM is enough.
func (m *Manager) checkVMMs(ctx context.Context) []Check {
	usable := false
	var checks []Check
	for _, d := range m.o.Drivers {
		a := d.Probe(ctx)
		usable = usable || a.OK
		detail := a.Reason
		if a.Version != "" {
			detail = fmt.Sprintf("%s %s: %s", a.Binary, a.Version, a.Reason)
		}
		checks = append(checks, Check{Name: d.Name(), OK: a.OK, Detail: detail, Fix: a.Fix})
	}
	vmmCheck := Check{Name: "VMM", Required: true, OK: usable}
	if chosen, err := m.choose(ctx, vmmAuto); err == nil {
		vmmCheck.Detail = fmt.Sprintf("%s will be used (%s)", chosen.Name, chosen.Reason)
	} else {
		vmmCheck.Detail, vmmCheck.Fix = "none can run here", "install QEMU (qemu-system-x86), or Firecracker where there is a usable /dev/kvm"
	}
	return append(checks, vmmCheck)
}

// Info describes this installation.
func (m *Manager) Info(ctx context.Context) (*Info, error) {
	containers, err := m.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	images, _, err := m.Images(ctx)
	if err != nil {
		return nil, err
	}
	i := &Info{
		Root: m.state.Root(), Containers: len(containers), Images: len(images),
		CPUs: runtime.NumCPU(), MemoryBytes: hostMemory(),
		OSType: runtime.GOOS, Architecture: runtime.GOARCH,
		Kernel: filepath.Join(m.state.Root(), fileKernel),
	}
	for _, c := range containers {
		switch c.State {
		case StateRunning:
			i.Running++
		case StatePaused:
			i.Paused++
		}
	}
	i.Stopped = i.Containers - i.Running - i.Paused
	if k, err := m.kernel(""); err == nil {
		i.KernelRelease, i.DiskFormat = k.Release, string(diskFormat(k))
	}
	i.VMMs, i.DefaultVMM = m.vmms(ctx)
	return i, nil
}

// vmms lists the VMMs, usable ones first, and the one that auto takes.
func (m *Manager) vmms(ctx context.Context) (list []VMMInfo, first string) {
	var useless []VMMInfo
	for _, d := range m.o.Drivers {
		a := d.Probe(ctx)
		info := VMMInfo{Name: d.Name(), Version: a.Version, Accel: a.Accel, Reason: a.Reason}
		if !a.OK {
			useless = append(useless, info)
			continue
		}
		if first == "" {
			first = d.Name()
		}
		list = append(list, info)
	}
	return append(list, useless...), first
}

func hostMemory() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}
