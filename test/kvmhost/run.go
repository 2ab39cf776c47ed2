package kvmhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/micropod/micropod/test/kvmhost/inside"
)

// User is who runs a command. It is in the group of /dev/kvm and in no other.
type User = inside.User

// Size is the size of a terminal.
type Size = inside.Resize

// Command is a command to run in the host. Paths mean the same as here.
type Command struct {
	Args []string
	// Env is the whole environment; PATH is added where it lacks.
	Env []string
	// Dir is "/" unless set.
	Dir string
	// User is root, or the caller where the host is this machine, unless set.
	User *User
	// Stdin is empty and output is lost unless set.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal gives the command a terminal, on Stdin and Stdout, where a host
	// was booted; elsewhere the command gets Stdin and Stdout as they are.
	Terminal *Terminal
}

// Terminal is the size of one, and how it changes.
type Terminal struct {
	Size   Size
	Resize <-chan Size
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Run runs a command and returns its exit code, or 128 and the signal that ended
// it. When ctx ends, the command is killed. An error means that it did not run
// or that the host has ended.
func (h *Host) Run(ctx context.Context, c Command) (int, error) {
	spec := inside.Spec{Args: c.Args, Env: withPath(c.Env), Dir: c.Dir, User: c.User}
	if spec.Dir == "" {
		spec.Dir = "/"
	}
	lock := new(sync.Mutex) // they may be one
	c.Stdout, c.Stderr = &lockedWriter{lock, c.Stdout}, &lockedWriter{lock, c.Stderr}
	code, err := 0, error(nil)
	if h.Emulated {
		if c.Terminal != nil {
			spec.Size = &c.Terminal.Size
		}
		code, err = h.runInside(ctx, spec, c)
	} else {
		code, err = runHere(ctx, spec, c)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("run %.80q: %w", c.Args, err)
	}
	return code, nil
}

// lockedWriter is one of two writers that are not called at the same time. nil
// takes everything.
type lockedWriter struct {
	lock *sync.Mutex
	w    io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	if l.w == nil {
		return len(p), nil
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.w.Write(p)
}

func withPath(env []string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], defaultPath)
}

func runHere(ctx context.Context, spec inside.Spec, c Command) (int, error) {
	cmd, err := inside.Prepare(spec)
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if c.Terminal != nil {
		// The files themselves, in our own group: another one may not read from
		// the terminal.
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout.(*lockedWriter).w, c.Stderr.(*lockedWriter).w
		cmd.SysProcAttr.Setpgid = false
	} else if c.Stdin != nil {
		if err := inside.Feed(cmd, c.Stdin); err != nil {
			return 0, err
		}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() {
		inside.Kill(cmd)
		cmd.Process.Kill()
	})
	defer stop()
	code, err := inside.Code(cmd, cmd.Wait())
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

// runInside is the client of package inside's server.
func (h *Host) runInside(ctx context.Context, spec inside.Spec, c Command) (int, error) {
	control, err := h.session.Dial(ctx, inside.ControlPort) // waits for a machine that boots
	if err != nil {
		return 0, h.dead(err)
	}
	defer control.Close()
	stop := context.AfterFunc(ctx, func() { control.Close() })
	defer stop()
	in, out := json.NewDecoder(control), json.NewEncoder(control)
	if err := out.Encode(spec); err != nil {
		return 0, h.dead(err)
	}
	var ports inside.Streams
	if err := in.Decode(&ports); err != nil {
		return 0, h.dead(err)
	}
	if ports.Error != "" {
		return 0, errors.New(ports.Error)
	}
	finish, err := h.connect(ctx, ports.Base, c)
	if err != nil {
		return 0, h.dead(err)
	}
	if c.Terminal != nil {
		go resize(c.Terminal.Resize, out)
	}
	var status inside.Status
	err = in.Decode(&status)
	if err := errors.Join(err, finish()); err != nil {
		return 0, h.dead(err)
	}
	if status.Error != "" {
		return 0, errors.New(status.Error)
	}
	return status.Code, nil
}

// connect joins the streams of a command. finish waits until all output has been
// written, and returns the first error of writing it.
func (h *Host) connect(ctx context.Context, base uint32, c Command) (finish func() error, err error) {
	var conns [3]net.Conn
	for i := range conns {
		if conns[i], err = h.session.Dial(ctx, base+uint32(i)); err != nil {
			for _, c := range conns[:i] {
				c.Close()
			}
			return nil, err
		}
	}
	// A machine that hangs closes nothing.
	stop := context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.Close()
		}
	})
	go func() {
		if c.Stdin != nil {
			io.Copy(conns[0], c.Stdin)
		}
		conns[0].Close()
	}()
	var wg sync.WaitGroup
	var errs [2]error
	for i, w := range []io.Writer{c.Stdout, c.Stderr} {
		wg.Go(func() {
			_, errs[i] = io.Copy(w, conns[1+i])
			conns[1+i].Close()
		})
	}
	return func() error {
		wg.Wait()
		stop()
		conns[0].Close()
		return errors.Join(errs[:]...)
	}, nil
}

func resize(sizes <-chan Size, out *json.Encoder) {
	for size := range sizes {
		if out.Encode(size) != nil {
			return
		}
	}
}

// Usable says why this machine's own KVM boots no microVM; nil means that it
// does. A paravirtual /dev/kvm, on a CPU without vmx and svm, boots no ordinary
// kernel.
func Usable() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	if !hasVirtualization(string(b)) {
		return errors.New("the CPU shows neither vmx nor svm")
	}
	return nil
}
