package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/portmux"
)

// portTimeout bounds the wait for the device of the channel.
const portTimeout = time.Minute

// server runs commands.
type server struct {
	session *portmux.Session
	ports   atomic.Uint32
}

// serve ends with the channel.
func serve() error {
	// What a login gives; PID 1 starts with less.
	limit := unix.Rlimit{Cur: 1024, Max: 1 << 19}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	s := &server{}
	s.ports.Store(firstStream)
	// A handler and no listener: the first connection may be waiting already.
	s.session, err = portmux.Guest(port, portmux.WithHandler(s.route))
	if err != nil {
		return err
	}
	<-s.session.Done()
	return errors.New("the channel has ended")
}

func (s *server) route(port uint32) (func(net.Conn), error) {
	if port != ControlPort {
		return nil, portmux.ErrRefused
	}
	return s.command, nil
}

// openPort waits for the port and for its other end: before that a read returns
// nothing, as at the end.
func openPort() (*os.File, error) {
	for end := time.Now().Add(portTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		dev := findPort()
		if dev == "" {
			continue
		}
		fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", dev, err)
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 0); err == nil && poll[0].Revents&unix.POLLHUP == 0 {
			return os.NewFile(uintptr(fd), dev), nil
		}
		unix.Close(fd)
	}
	return nil, fmt.Errorf("no virtio-serial port %s after %s", PortName, portTimeout)
}

func findPort() string {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == PortName {
			return "/dev/" + filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// command serves one connection to ControlPort.
func (s *server) command(c net.Conn) {
	defer c.Close()
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	var spec Spec
	if err := in.Decode(&spec); err != nil {
		return
	}
	cmd, err := Prepare(spec)
	if err != nil {
		out.Encode(Streams{Error: err.Error()})
		return
	}
	streams, err := s.streams(out)
	if err != nil {
		return // the client has gone
	}
	defer streams.close()
	var status Status
	status.Code, err = run(cmd, spec, streams, in)
	if err != nil {
		status.Error = err.Error()
	}
	streams.close()
	out.Encode(status)
}

// streams are the connections of a command: input, output, errors.
type streams [3]net.Conn

func (s streams) close() {
	for _, c := range s {
		if c != nil {
			c.Close()
		}
	}
}

// streams offers three ports and waits for the client there.
func (s *server) streams(out *json.Encoder) (all streams, err error) {
	base := s.ports.Add(3) - 3
	var listeners [3]net.Listener
	for i := range listeners {
		if listeners[i], err = s.session.Listen(base + uint32(i)); err != nil {
			return all, err
		}
		defer listeners[i].Close()
	}
	if err := out.Encode(Streams{Base: base}); err != nil {
		return all, err
	}
	for i, l := range listeners {
		if all[i], err = l.Accept(); err != nil {
			all.close()
			return all, err
		}
	}
	return all, nil
}

// run starts a command, follows the control connection and waits.
func run(cmd *exec.Cmd, spec Spec, s streams, control *json.Decoder) (int, error) {
	start := startPiped
	if spec.Size != nil {
		start = startOnTerminal
	}
	resize, wait, err := start(cmd, spec, s)
	if err != nil {
		return 0, err
	}
	var ended atomic.Bool // what it leaves in the background stays
	go func() {
		for {
			var size Resize
			if control.Decode(&size) != nil {
				break // the client has gone
			}
			resize(size)
		}
		if !ended.Load() {
			Kill(cmd)
		}
	}()
	err = wait()
	ended.Store(true)
	return Code(cmd, err)
}

type starter func(*exec.Cmd, Spec, streams) (resize func(Resize), wait func() error, err error)

var _, _ starter = startPiped, startOnTerminal

func startPiped(cmd *exec.Cmd, _ Spec, s streams) (func(Resize), func() error, error) {
	cmd.Stdout, cmd.Stderr = s[1], s[2]
	if err := Feed(cmd, s[0]); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return func(Resize) {}, cmd.Wait, nil
}

func startOnTerminal(cmd *exec.Cmd, spec Spec, s streams) (func(Resize), func() error, error) {
	master, tty, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer tty.Close()
	resize := func(r Resize) { pty.Setsize(master, &pty.Winsize{Rows: r.Rows, Cols: r.Cols}) }
	resize(*spec.Size)
	if u := spec.User; u != nil {
		err = tty.Chown(int(u.UID), 5)
	}
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr.Setpgid = false // a session is a group, too
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		err = cmd.Start()
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	shown := make(chan struct{})
	go io.Copy(master, s[0])
	go func() {
		io.Copy(s[1], master) // ends with an error when the last user of tty is gone
		close(shown)
	}()
	return resize, func() error {
		err := cmd.Wait()
		select {
		case <-shown:
		case <-time.After(outputDelay):
		}
		master.Close()
		return err
	}, nil
}
