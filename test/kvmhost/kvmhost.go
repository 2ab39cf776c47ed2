// Package kvmhost is a machine with a usable /dev/kvm for tests. Where the
// machine that it runs on has none, it boots one: QEMU's software emulation has
// AMD's SVM, so an ordinary kernel's kvm_amd works in it, and the real
// Firecracker on that.
//
// The booted machine sees the root directory of the real one, read-only below a
// layer of its memory, so every program is at its usual place. /tmp, /var/tmp,
// /run, /dev and the like are its own. It has no network but lo.
//
// Lifecycle: Start boots, Run runs any number of commands, also at once, Close
// ends the machine. It dies with the process that started it in any case.
//
// The program that calls Start is also the machine's PID 1, so it must be
// linked statically and call inside.Main first in its main or TestMain.
package kvmhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/portmux"
	"github.com/micropod/micropod/test/kvmhost/inside"
)

// Options say what machine to boot. Only Kernel is needed.
type Options struct {
	// Kernel is what download-kernel.sh --kvm-host fetches; "" means
	// MICROPOD_TEST_HOST_KERNEL.
	Kernel string
	// Show are directories below /tmp or /var/tmp to be seen in the machine,
	// read-only. All others are.
	Show []string
	// Writable are directories to be seen at the same place and written.
	Writable []string
	// MemoryMiB and CPUs default to 4096 and 1. With two CPUs, each a thread of
	// QEMU, kernels of the host have crashed and guests have hung.
	MemoryMiB, CPUs int
	// VirtualClock makes the machine's clock count instructions, a nanosecond
	// each: what is measured there repeats to a percent on a busy machine. It
	// takes one CPU and Emulate.
	VirtualClock bool
	// Emulate boots a machine even where this one has a usable KVM.
	Emulate bool
}

const (
	bootTimeout = 5 * time.Minute
	scratchSize = 16 << 30
)

// Host is a machine with KVM. Safe for concurrent use.
type Host struct {
	// Emulated reports whether a machine was booted. Otherwise Run runs commands
	// right here.
	Emulated bool

	process *process
	session *portmux.Session
	console tail
	silent  chan struct{} // closed when all of the machine's console has been read
}

// Start returns a host that runs commands. The caller closes it.
func Start(ctx context.Context, o Options) (*Host, error) {
	if !o.Emulate && !o.VirtualClock && Usable() == nil {
		return &Host{}, nil
	}
	h := &Host{Emulated: true}
	if err := h.start(ctx, o.withDefaults()); err != nil {
		h.Close()
		return nil, fmt.Errorf("start the KVM host: %w", err)
	}
	return h, nil
}

func (o Options) withDefaults() Options {
	if o.Kernel == "" {
		o.Kernel = os.Getenv("MICROPOD_TEST_HOST_KERNEL")
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 4096
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	return o
}

func (h *Host) start(ctx context.Context, o Options) error {
	if o.Kernel == "" {
		return errors.New("no kernel: MICROPOD_TEST_HOST_KERNEL is not set (run scripts/test-setup.sh)")
	}
	qemu, err := lookTool("qemu-system-x86_64")
	if err != nil {
		return err
	}
	// The machine needs its files only until it has opened them all.
	dir, err := os.MkdirTemp("", "kvmhost")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := prepare(dir, o)
	if err != nil {
		return err
	}
	if err := h.launch(qemu, m); err != nil {
		return err
	}
	return h.waitReady(ctx)
}

// prepare makes the machine's files in dir.
func prepare(dir string, o Options) (machine, error) {
	k, err := kernel.Open(o.Kernel, filepath.Join(filepath.Dir(o.Kernel), "cache"))
	if err != nil {
		return machine{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return machine{}, err
	}
	config := inside.Config{Writable: map[string]string{}}
	for i, path := range o.Writable {
		path, err := canonical(path)
		if err != nil {
			return machine{}, err
		}
		config.Writable[fmt.Sprintf("share%d", i)] = path
	}
	for _, path := range o.Show {
		if path, err = canonical(path); err != nil {
			return machine{}, err
		}
		if hidden(path) {
			config.Show = append(config.Show, path)
		}
	}
	m := machine{
		kernel: k.Path, initrd: filepath.Join(dir, "initrd"), scratch: filepath.Join(dir, "scratch"),
		memoryMiB: o.MemoryMiB, cpus: o.CPUs, virtualClock: o.VirtualClock, writable: config.Writable,
	}
	if err := writeInitrd(m.initrd, k, self, config); err != nil {
		return m, err
	}
	return m, writeScratch(m.scratch, scratchSize)
}

func canonical(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// hidden reports whether the machine has something else in this place.
func hidden(path string) bool {
	return strings.HasPrefix(path, "/tmp/") || strings.HasPrefix(path, "/var/tmp/")
}

// launch starts QEMU and opens the channel.
func (h *Host) launch(qemu string, m machine) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("create socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel")
	defer ours.Close() // FileConn has its own
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		conn.Close()
		return fmt.Errorf("create pipe: %w", err)
	}
	h.silent = make(chan struct{})
	go h.readConsole(r)
	h.process, err = spawn(qemu, arguments(m), &h.console, []*os.File{w, theirs})
	w.Close()
	if err != nil {
		conn.Close()
		return err
	}
	h.session, err = portmux.Host(conn)
	return err
}

func (h *Host) readConsole(r *os.File) {
	defer close(h.silent)
	defer r.Close()
	r.WriteTo(&h.console)
}

// waitReady runs the first command.
func (h *Host) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	code, err := h.Run(ctx, Command{Args: []string{"/bin/true"}})
	if err == nil && code != 0 {
		err = fmt.Errorf("/bin/true ends with %d", code)
	}
	return err
}

// Console is the end of what the machine's kernel and PID 1 have said.
func (h *Host) Console() string { return h.console.String() }

// Close ends the machine and all that runs in it. Idempotent.
func (h *Host) Close() error {
	if h.session != nil {
		h.session.Close()
	}
	if h.process != nil {
		h.process.kill()
	}
	return nil
}

// dead is the error of a machine that has ended, with its last words.
func (h *Host) dead(err error) error {
	select {
	case <-h.process.done:
	case <-h.session.Done():
		// QEMU closes the channel before it ends.
		select {
		case <-h.process.done:
		case <-time.After(time.Second):
			h.process.kill()
		}
	default:
		return err
	}
	<-h.silent // nobody else has the other end
	return fmt.Errorf("the KVM host has ended (%v): %w; its console:\n%s", h.process.cmd.ProcessState, err, h.Console())
}
