package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// Bounds of what is read to list processes.
const (
	maxCgroups  = 1024    // below the container's own, which it may make
	maxProcFile = 8 << 10 // bytes of a file of /proc/PID
	clockTicks  = 100     // a second: USER_HZ of every architecture that we know
)

// processes lists a container's processes from the agent's own /proc. No program
// of the image is run.
func (a *agent) processes(r api.ProcessesRequest) (api.ProcessesReply, error) {
	p, err := a.container(r.ID)
	if err != nil {
		return api.ProcessesReply{}, err
	}
	pids, err := p.cgroup.pids()
	if err != nil {
		return api.ProcessesReply{}, internal("cgroup", err)
	}
	now, up := time.Now(), bootTime()
	reply := api.ProcessesReply{Processes: []api.Process{}}
	size := 0
	for _, pid := range pids {
		if pid <= r.After {
			continue
		}
		q, err := readProcess("/proc", pid, now.Add(-up))
		if err != nil {
			continue // it has ended
		}
		b, err := json.Marshal(q)
		if err != nil {
			return reply, err
		}
		if size += len(b) + 1; size > api.MaxReply-1024 {
			reply.More = true
			break
		}
		reply.Processes = append(reply.Processes, q)
	}
	return reply, nil
}

// pids lists the processes of the cgroup and of those below it, in order.
func (c *cgroup) pids() ([]int, error) {
	var pids []int
	dirs := 0
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil && path == c.dir {
			return err
		}
		if err != nil || !d.IsDir() {
			return nil // a cgroup that has gone, or a control file
		}
		if dirs++; dirs > maxCgroups {
			return fs.SkipAll
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil // gone, or threaded
		}
		for word := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// bootTime is how long the guest has been up, suspended or not: the clock of
// the start times in /proc.
func bootTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// readProcess reads /proc/PID, proc(5); booted is when the guest's clock began.
func readProcess(proc string, pid int, booted time.Time) (api.Process, error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	q := api.Process{PID: pid}
	stat, err := readProcFile(filepath.Join(dir, "stat"))
	if err != nil {
		return q, err
	}
	// The name, in parentheses, may hold anything, parentheses too.
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return q, fmt.Errorf("process %d: stat %q", pid, stat)
	}
	name, f := stat[open+1:end], strings.Fields(stat[end+1:])
	if len(f) < 20 {
		return q, fmt.Errorf("process %d: stat has %d fields", pid, len(f))
	}
	var n [4]int64
	for i, at := range []int{11, 12, 19, 4} { // utime, stime, starttime, tty_nr
		if n[i], err = strconv.ParseInt(f[at], 10, 64); err != nil {
			return q, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	if q.PPID, err = strconv.Atoi(f[1]); err != nil {
		return q, fmt.Errorf("process %d: %w", pid, err)
	}
	const tick = time.Second / clockTicks
	q.CPU, q.Started, q.TTY = time.Duration(n[0]+n[1])*tick, booted.Add(time.Duration(n[2])*tick), ttyName(n[3])
	if q.UID, err = effectiveUID(dir); err != nil {
		return q, err
	}
	q.Command, err = commandLine(dir, name)
	return q, err
}

func readProcFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	return string(b), err
}

func effectiveUID(dir string) (int, error) {
	status, err := readProcFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "Uid:" {
			return strconv.Atoi(f[2])
		}
	}
	return 0, fmt.Errorf("%s/status has no Uid", dir)
}

// commandLine is what ps shows: the arguments, or the name in brackets.
func commandLine(dir, name string) (string, error) {
	line, err := readProcFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return "", err
	}
	line = strings.ReplaceAll(strings.TrimRight(line, "\x00"), "\x00", " ")
	if line == "" {
		line = "[" + name + "]"
	}
	return api.Clean(line, api.MaxCommand), nil
}

// ttyName is the name of a controlling terminal's device number.
func ttyName(nr int64) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	if major >= 136 && major <= 143 { // Unix98 pseudo-terminals
		return fmt.Sprintf("pts/%d", minor+(major-136)<<8)
	}
	return "?"
}
