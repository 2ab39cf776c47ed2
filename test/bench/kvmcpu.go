package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime compares what a run costs the host outside of the VMM with what the
// VMM takes, from the command to the end of everything.
func (r *kvmRunner) cpuTime() error {
	fmt.Fprintf(r.out, "\n== CPU time of one run, to its end, in seconds\n")
	for _, c := range []struct {
		name  string
		flags []string
	}{{byJail, nil}, {byItself, []string{"--jailer=false"}}} {
		var outside, inside, ratios []float64
		for range r.rounds {
			all, vmm, err := r.countedRun(c.flags)
			if err != nil {
				return err
			}
			outside, inside = append(outside, (all-vmm).Seconds()), append(inside, vmm.Seconds())
			ratios = append(ratios, (all-vmm).Seconds()/vmm.Seconds())
		}
		fmt.Fprintf(r.out, "%s: VMM %s, all others %s\n", c.name, spreadOf(inside).precise(), spreadOf(outside).precise())
		ratio := spreadOf(ratios)
		fmt.Fprintf(r.out, "%s: all others / VMM: %s; %s\n", c.name, ratio.precise(), verdict(ratio.median, 0.25))
	}
	return nil
}

// countedRun is a run whose container waits for its input, so that its VMM can
// be found. A shell waits first, until somebody counts.
func (r *kvmRunner) countedRun(flags []string) (all, vmm time.Duration, err error) {
	args := append([]string{"sh", "-c", `read go && exec "$@"`, "sh", r.bin, "--root", r.root}, flags...)
	args = append(args, "run", "--rm", "--interactive", "--vmm", "firecracker", "--network", "none", storedImage,
		"sh", "-c", "echo "+strings.TrimSpace(ready)+"; exec cat")
	cmd := r.command("busybox", args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	of, err := r.countBoth(cmd.Process.Pid, in, out)
	in.Close() // ends all of it
	if err = errors.Join(err, cmd.Wait()); err == nil {
		_, err = adopted()
	}
	if err != nil {
		return 0, 0, err
	}
	return of.read()
}

// counters are those of a run and of its VMM.
type counters struct {
	all    *os.File
	vmm    []*os.File // one for each thread
	before time.Duration
}

// countBoth lets the command go, and counts its VMM when the container speaks.
func (r *kvmRunner) countBoth(pid int, in io.Writer, out io.Reader) (c counters, err error) {
	if c.all, err = countCPU(pid, unix.PerfBitInherit|unix.PerfBitDisabled|unix.PerfBitEnableOnExec); err != nil {
		return c, err
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return c, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != ready {
		return c, fmt.Errorf("the container said %q: %w", line, err)
	}
	vmm, err := findVMM()
	if err != nil {
		return c, err
	}
	if c.before, err = processClock(vmm); err != nil {
		return c, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", vmm))
	if err != nil {
		return c, err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return c, err
		}
		f, err := countCPU(tid, 0)
		if err != nil {
			return c, err
		}
		c.vmm = append(c.vmm, f)
	}
	return c, nil
}

// read is for when all has ended.
func (c counters) read() (all, vmm time.Duration, err error) {
	vmm = c.before
	for _, f := range c.vmm {
		d, err := readCounter(f)
		if err != nil {
			return 0, 0, err
		}
		vmm += d
	}
	all, err = readCounter(c.all)
	return all, vmm, err
}

// countCPU counts the CPU time of a thread, also of all that it starts if the
// flags say so: perf_event_open(2). Unlike getrusage(2) it is exact, and knows of
// processes that nobody has waited for, as those are that end with the init of
// their pid namespace.
func countCPU(tid int, flags uint64) (*os.File, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK,
		Size: unix.PERF_ATTR_SIZE_VER0, Bits: flags,
	}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("count the CPU time of %d (that needs root): %w", tid, err)
	}
	return os.NewFile(uintptr(fd), "counter"), nil
}

func readCounter(f *os.File) (time.Duration, error) {
	defer f.Close()
	var b [8]byte
	_, err := f.Read(b[:])
	return time.Duration(binary.NativeEndian.Uint64(b[:])), err
}

// findVMM finds the one Firecracker of a command, or of a supervisor that has
// become a child of this process.
func findVMM() (int, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	for vmm, p := range all {
		if p.name == "firecracker" && below(all, vmm, os.Getpid()) {
			return vmm, nil
		}
	}
	return 0, errors.New("there is no process of Firecracker")
}

// processClock is the CPU time so far of a process, all of its threads.
func processClock(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED, of a whole process: clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
