package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// Descriptors that a supervisor inherits, beside its standard three.
const (
	fdLock     = 3
	fdOutcome  = 4
	fdPlan     = 5
	fdAttached = 6 // only when somebody is attached from the start
)

// logName is the supervisor's own log, in the container's directory.
const logName = "supervisor.log"

// Spawn starts a supervisor and returns its outcome, once the container's
// process runs or could not be started. argv is the command that ends in Run.
// The lock goes to the supervisor in every case: the caller only gives its own
// hold up. attached is a connected socket, or nil.
//
// When ctx ends first the supervisor is killed, and with it the VM.
func Spawn(ctx context.Context, argv []string, p Plan, lock *state.FileLock, attached *os.File) (Outcome, error) {
	log, err := openLog(p)
	if err != nil {
		return Outcome{}, err
	}
	defer log.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return Outcome{}, err
	}
	defer outR.Close()
	planR, planW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return Outcome{}, err
	}
	defer planW.Close()

	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.Env = append(environ(), "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{lock.File(), outW, planR}
	if attached != nil {
		p.Attached = true
		cmd.ExtraFiles = append(cmd.ExtraFiles, attached)
	}
	err = vmm.CloseOnExec()
	if err == nil {
		err = cmd.Start()
	}
	outW.Close()
	planR.Close()
	if err != nil {
		return Outcome{}, fmt.Errorf("start supervisor: %w", err)
	}
	failpoint.Here(failpoint.SpawnStarted)
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	return handshake(ctx, cmd, p, planW, outR)
}

// environ is what a supervisor gets beside the user's own. On a single CPU the
// runtime would run one goroutine at a time, and one that waits in a system call,
// as for the VMM's end, would hold up all others until the runtime notices, two
// ticks of the kernel later.
//
// A boot allocates some 3 MiB. The runtime would look for garbage in them beside it, which
// takes as long as the rules of a network do.
func environ() []string {
	env := append(failpoint.Environ(), "GOGC=200")
	if runtime.NumCPU() == 1 {
		env = append(env, "GOMAXPROCS=2")
	}
	return env
}

// openLog opens the supervisor's own log. A VM that serves files adds to that of
// the container's last run, which may be what its user wants to read.
func openLog(p Plan) (*os.File, error) {
	mode := os.O_TRUNC
	if p.Service {
		mode = os.O_APPEND
	}
	log, err := os.OpenFile(p.Dir+"/"+logName, os.O_WRONLY|os.O_CREATE|mode, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open supervisor log: %w", err)
	}
	boundLog(log)
	return log, nil
}

// handshake sends the plan and reads the outcome.
func handshake(ctx context.Context, cmd *exec.Cmd, p Plan, planW io.WriteCloser, outR io.Reader) (Outcome, error) {
	// A supervisor that died shows as a broken pipe here and as EOF below.
	writeErr := errors.Join(json.NewEncoder(planW).Encode(p), planW.Close())
	failpoint.Here(failpoint.SpawnPlanned)
	var o Outcome
	err := json.NewDecoder(io.LimitReader(outR, 1<<20)).Decode(&o)
	if err == nil {
		go cmd.Wait() // reaps it, should this process live longer
		return o, nil
	}
	cmd.Process.Kill()
	waitErr := cmd.Wait()
	if ctx.Err() != nil {
		return Outcome{}, ctx.Err()
	}
	return Outcome{}, fmt.Errorf("supervisor ended before the container started: %w (see %s/%s)",
		errors.Join(writeErr, waitErr), p.Dir, logName)
}

// inherited is what Spawn handed down.
type inherited struct {
	lock     *state.FileLock
	outcome  *os.File
	plan     Plan
	attached net.Conn // nil: nobody
}

// inherit collects what Spawn handed down.
func inherit() (inherited, error) {
	for fd := fdLock; fd <= fdPlan; fd++ {
		unix.CloseOnExec(fd)
	}
	in := inherited{
		lock:    state.Inherited(os.NewFile(fdLock, "alive")),
		outcome: os.NewFile(fdOutcome, "outcome"),
	}
	plan := os.NewFile(fdPlan, "plan")
	if in.outcome == nil || plan == nil {
		return in, errors.New("not started by micropod")
	}
	defer plan.Close()
	if err := json.NewDecoder(plan).Decode(&in.plan); err != nil {
		return in, fmt.Errorf("read plan: %w", err)
	}
	if !in.plan.Attached {
		return in, nil // descriptor 6 may be anything, the runtime's own for one
	}
	f := os.NewFile(fdAttached, "attached")
	defer f.Close()
	var err error
	if in.attached, err = net.FileConn(f); err != nil { // a duplicate, close-on-exec
		return in, fmt.Errorf("adopt attached client: %w", err)
	}
	return in, nil
}
