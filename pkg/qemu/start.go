package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// Start boots a VM. It returns when QEMU says that the machine runs.
func (d *Driver) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	m, err := d.start(ctx, c, true)
	if errors.Is(err, template.ErrUnusable) && ctx.Err() == nil {
		d.log.Warn("qemu boots the guest anew", "vm", c.ID, "err", err)
		c.Templates = ""
		m, err = d.start(ctx, c, true)
	}
	if err != nil && strings.Contains(err.Error(), "-sandbox on") && ctx.Err() == nil {
		// QEMU can be built without it.
		d.log.Warn("qemu has no seccomp sandbox, running without", "vm", c.ID, "err", err)
		m, err = d.start(ctx, c, false)
	}
	if err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	return m, nil
}

// launch is a start under way: what the steps hand on, and how to undo them.
type launch struct {
	d         *Driver
	c         vmm.Config
	sandboxed bool

	binary   string
	platform platform
	args     []string
	key      string     // of the template
	template *os.File   // nil for a boot
	children []*os.File // QEMU's ends of the channels, in the order of args.go
	undo     cleanup

	m *Machine
}

func (d *Driver) start(ctx context.Context, c vmm.Config, sandboxed bool) (_ vmm.Machine, err error) {
	l := &launch{d: d, c: c, sandboxed: sandboxed, m: newMachine(d.log, c.ID)}
	defer func() {
		l.closeChildren()
		if err != nil {
			l.undo.run()
		}
	}()
	for _, step := range []func() error{
		l.checkConfig,
		l.findVMM,
		func() error { return l.findTemplate(ctx) },
		l.chooseArguments,
		l.openConsole,
		l.openVsock,
		l.spawn,
		func() error { return l.waitRunning(ctx) },
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(); err != nil {
			return nil, err
		}
	}
	go l.m.watch(l.undo)
	return l.m, nil
}

// checkConfig also makes paths absolute: QEMU runs in another directory.
func (l *launch) checkConfig() error {
	if err := l.c.Validate(); err != nil {
		return err
	}
	l.c.Disks = append([]vmm.Disk(nil), l.c.Disks...)
	paths := []*string{&l.c.Kernel, &l.c.Initrd}
	for i := range l.c.Disks {
		paths = append(paths, &l.c.Disks[i].Path)
	}
	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		info, err := os.Stat(abs)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", abs)
		}
		*p = abs
	}
	return nil
}

func (l *launch) findVMM() error {
	binary, err := l.d.lookBinary()
	if err != nil {
		return fmt.Errorf("%w: %w", vmm.ErrUnavailable, err)
	}
	if l.d.host.arch != "amd64" {
		return fmt.Errorf("%w: only x86-64 hosts are supported", vmm.ErrUnavailable)
	}
	accel, _, _ := l.d.host.accel()
	l.binary = binary
	l.platform = platform{accel: accel, sandbox: l.sandboxed}
	return nil
}

// findTemplate looks for the state to start from.
func (l *launch) findTemplate(ctx context.Context) error {
	if l.c.Templates == "" || l.platform.accel != accelTCG {
		return nil
	}
	id, err := template.BootID()
	if err == nil {
		l.key, err = templateKey(l.binary, l.c, l.platform, id)
	}
	var dir string
	if err == nil {
		dir, err = l.templates().Open(l.key, func(dir string) error { return l.makeTemplate(ctx, dir) })
	}
	if err == nil && dir != "" {
		l.template, err = os.OpenFile(filepath.Join(dir, templateState), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", template.ErrUnusable, err)
	}
	return nil
}

func (l *launch) templates() template.Store { return template.Store{Dir: l.c.Templates} }

func (l *launch) chooseArguments() (err error) {
	switch {
	case l.template != nil:
		l.platform.role, l.m.loaded = fromState, true
	case l.platform.accel == accelTCG:
		l.platform.tscKHz = l.d.began.khz()
	}
	l.args, err = arguments(l.c, l.platform)
	return err
}

func (l *launch) openConsole() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	l.children = append(l.children, w)
	c, err := openConsole(l.c.ConsolePath, l.c.ConsoleLimit, r)
	if err != nil {
		r.Close()
		return err
	}
	l.undo.add(func() { l.m.finishConsole(c) })
	return nil
}

func (l *launch) openVsock() error {
	conn, err := l.channel()
	if err != nil {
		return err
	}
	v, err := openVsock(l.c.VsockPath, conn)
	if err != nil {
		conn.Close()
		return err
	}
	l.undo.add(v.close)
	if l.template != nil {
		l.undo.add(func() { l.templates().Judge(l.key, l.m.heard.Load()) })
	}
	failpoint.Here(failpoint.QEMUListening)
	return nil
}

func (l *launch) spawn() error {
	conn, err := l.channel()
	if err != nil {
		return err
	}
	if err := l.openNICs(); err != nil {
		conn.Close()
		return err
	}
	if l.template != nil {
		l.children = append(l.children, l.template)
	}
	p, err := spawn(l.binary, l.args, l.children)
	l.closeChildren()
	if err != nil {
		conn.Close()
		return err
	}
	failpoint.Here(failpoint.QEMUSpawned)
	l.m.process = p
	l.m.qmp = openQMP(conn, func() { p.cmd.Process.Kill() })
	l.undo.add(func() {
		p.kill()
		l.m.qmp.finish()
	})
	return nil
}

func (l *launch) waitRunning(ctx context.Context) error {
	select {
	case <-l.m.qmp.running:
		return nil
	case <-l.m.process.done:
		if l.template == nil {
			return l.failed()
		}
		err := l.failed()
		return fmt.Errorf("%w: %w", template.ErrUnusable, errors.Join(err, l.templates().Forget(l.key, err)))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed is the error of a QEMU that did not come up, in its own words.
func (l *launch) failed() error {
	l.m.process.kill()
	if text := l.m.process.stderr.String(); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("%s ended: %s", l.binary, l.m.process.cmd.ProcessState)
}

// channel makes a socket pair, keeps QEMU's end for spawn and returns ours.
func (l *launch) channel() (net.Conn, error) {
	ours, theirs, err := channelPair()
	if err == nil {
		l.children = append(l.children, theirs)
	}
	return ours, err
}

func channelPair() (ours net.Conn, theirs *os.File, err error) {
	file, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close() // FileConn has its own
	if ours, err = net.FileConn(file); err != nil {
		theirs.Close()
	}
	return ours, theirs, err
}

// socketPair makes two sockets that are each other's end, the second for QEMU.
func socketPair(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}

func (l *launch) closeChildren() {
	for _, f := range l.children {
		f.Close()
	}
	l.children = nil
	l.template.Close() // of a start that did not get so far; nil is no harm
}

// cleanup is a stack of what is to be undone.
type cleanup []func()

func (c *cleanup) add(f func()) { *c = append(*c, f) }

func (c *cleanup) run() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
	*c = nil
}
