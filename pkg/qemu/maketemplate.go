package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// templateState is the file of a template.
const templateState = "state"

// templateKey names what a guest's state depends on, besides the host: the files
// and QEMU's command line.
func templateKey(binary string, c vmm.Config, p platform, bootID string) (string, error) {
	c.ID = ""
	p.role, p.tscKHz = makeState, 0
	args, err := arguments(c, p)
	if err != nil {
		return "", err
	}
	return template.Key(bootID, []string{binary, c.Kernel, c.Initrd}, args)
}

// makeTemplate boots a guest without disks and without a host, and writes its
// state to a file of dir once it has opened its port.
//
// An emulated CPU spends most of a start on the boot of the kernel, which is the
// same each time, so VMs after the first go on from there. Nothing of a container
// is in a template: disks are empty while it is made, and their drivers are loaded
// afterwards, as is all that the host has to say. What VMs of a template have in
// common are the guest kernel's random secrets (the agent feeds its generator
// before the container starts): emulation is no security boundary anyway.
func (l *launch) makeTemplate(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, template.MakeLimit)
	defer cancel()
	f, err := os.OpenFile(filepath.Join(dir, templateState), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	c, p := l.c, l.platform
	c.ID, p.role, p.tscKHz = "template", makeState, l.d.began.khz()
	args, err := arguments(c, p)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ours, theirs, err := channelPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	devices, err := standIns(c.NICs)
	if err != nil {
		theirs.Close()
		return err
	}
	q, err := spawn(l.binary, args, append([]*os.File{null, null, theirs}, devices...))
	theirs.Close()
	closeAll(devices)
	if err != nil {
		return err
	}
	defer q.kill()
	defer context.AfterFunc(ctx, func() { ours.Close() })()
	if err := newSaver(ours).save(f); err != nil {
		q.kill()
		return errors.Join(ctx.Err(), fmt.Errorf("make a template: %w %s", err, q.stderr))
	}
	return nil
}

// saver speaks QMP, one command after the other, to save the state of a machine.
type saver struct {
	conn   net.Conn
	in     *bufio.Scanner
	opened bool   // the guest has opened its port
	saved  string // how far the saving of the state is
}

func newSaver(conn net.Conn) *saver {
	m := &saver{conn: conn, in: bufio.NewScanner(conn)}
	m.in.Buffer(make([]byte, 4<<10), maxMessage)
	return m
}

// save waits for the guest and writes its state. The machine runs on meanwhile,
// so that one which is started from the state runs at once.
func (m *saver) save(f *os.File) error {
	if err := m.call("qmp_capabilities", nil); err != nil {
		return err
	}
	if err := m.until(func() bool { return m.opened }); err != nil {
		return err
	}
	type object map[string]any
	if err := m.call("migrate-set-capabilities", object{"capabilities": []object{{"capability": "events", "state": true}}}); err != nil {
		return err
	}
	if err := m.call("migrate-set-parameters", object{"max-bandwidth": int64(1) << 40}); err != nil {
		return err
	}
	if err := m.call("getfd", object{"fdname": "state"}, int(f.Fd())); err != nil {
		return err
	}
	if err := m.call("migrate", object{"uri": "fd:state"}); err != nil {
		return err
	}
	if err := m.until(func() bool { return m.saved == "completed" || m.saved == "failed" }); err != nil {
		return err
	}
	if m.saved == "failed" {
		return errors.New("qemu cannot save this machine")
	}
	return nil
}

// call sends a command, with descriptors along, and waits for its end.
func (m *saver) call(command string, arguments any, fds ...int) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	if err := m.send(append(line, '\n'), fds); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	done := false
	for !done {
		msg, err := m.next()
		if err != nil {
			return fmt.Errorf("qmp %s: %w", command, err)
		}
		done = len(msg.Return) > 0
	}
	return nil
}

func (m *saver) send(line []byte, fds []int) error {
	if len(fds) == 0 {
		_, err := m.conn.Write(line)
		return err
	}
	_, _, err := m.conn.(*net.UnixConn).WriteMsgUnix(line, unix.UnixRights(fds...), nil)
	return err
}

// until reads events until they say that it is so.
func (m *saver) until(so func() bool) error {
	for !so() {
		if _, err := m.next(); err != nil {
			return err
		}
	}
	return nil
}

func (m *saver) next() (qmpMessage, error) {
	if !m.in.Scan() {
		return qmpMessage{}, errors.Join(errors.New("qemu has ended"), m.in.Err())
	}
	msg, err := parseQMP(m.in.Bytes())
	switch msg.Event {
	case "VSERPORT_CHANGE":
		m.opened = m.opened || msg.Data.Open
	case "MIGRATION":
		m.saved = msg.Data.Status
	}
	return msg, err
}
