// Package qemu runs a microVM with QEMU's `microvm` machine: the same
// virtio-mmio devices as Firecracker, with hardware virtualization where the
// host has it and with emulation (TCG) where it has not. Emulation is no
// security boundary.
//
// QEMU opens the kernel, the initramfs and the disks, nothing else. Its serial
// console, its control channel (QMP), the guest's port and the state that it may
// go on from are inherited pipes, sockets and a file, so there is no path by which another process could reach them.
// The host side of Firecracker's vsock protocol is served in this process, and
// its connections travel to the guest over a virtio-serial port named
// AgentPort (package portmux).
//
// With emulation, and where Config.Templates allows it, VMs after the first go on
// from a guest that has booted (maketemplate.go).
//
// Lifecycle: as package vmm says. QEMU dies with the process that started it,
// however that ends.
package qemu

import (
	"log/slog"
)

// AgentPort is the name of the virtio-serial port that carries portmux.
const AgentPort = "micropod.agent"

// Options configures a Driver.
type Options struct {
	// Binary is the path of qemu-system-x86_64, "" to look on PATH.
	Binary string
	// Log receives warnings; nil for none.
	Log *slog.Logger
}

// Driver starts QEMU. It does not change after New: safe for concurrent use.
type Driver struct {
	binary string
	log    *slog.Logger
	host   host
	began  tscMoment
}

// New returns a driver. It does not look at the host yet.
func New(o Options) *Driver {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Driver{binary: o.Binary, log: log, host: thisHost(), began: readTSC()}
}

// Name is "qemu".
func (d *Driver) Name() string { return "qemu" }
