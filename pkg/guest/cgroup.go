package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// controllers that containers get, as far as the kernel has them.
func wantedControllers() []string { return []string{"cpu", "cpuset", "io", "memory", "pids"} }

// enableControllers hands the controllers of the cgroup dir to its children.
func enableControllers(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	var words []string
	for _, c := range strings.Fields(string(have)) {
		if slices.Contains(wantedControllers(), c) {
			words = append(words, "+"+c)
		}
	}
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), strings.Join(words, " "))
}

func writeFile(path, value string) error { return os.WriteFile(path, []byte(value), 0o644) }

// cgroup is a container's cgroup v2 directory.
type cgroup struct{ dir string }

// newCgroup makes the cgroup parent/id with the limits of r.
func newCgroup(parent, id string, r *api.Resources) (*cgroup, error) {
	c := &cgroup{dir: filepath.Join(parent, id)}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	for file, value := range cgroupFiles(r) {
		if err := writeFile(filepath.Join(c.dir, file), value); err != nil {
			c.remove()
			return nil, fmt.Errorf("set %s to %s: %w", file, value, err)
		}
	}
	return c, nil
}

// cgroupFiles are the control files that r asks for: a pure function.
func cgroupFiles(r *api.Resources) map[string]string {
	files := make(map[string]string)
	if r == nil {
		return files
	}
	limit := func(file string, n *int64) {
		switch {
		case n == nil || *n == 0:
		case *n < 0:
			files[file] = "max"
		default:
			files[file] = strconv.FormatInt(*n, 10)
		}
	}
	if m := r.Memory; m != nil {
		limit("memory.max", m.Limit)
		limit("memory.low", m.Reservation)
		if m.Limit != nil && m.Swap != nil && *m.Limit > 0 && *m.Swap >= *m.Limit {
			files["memory.swap.max"] = strconv.FormatInt(*m.Swap-*m.Limit, 10)
		}
	}
	if r.Pids != nil {
		limit("pids.max", r.Pids.Limit)
	}
	if c := r.CPU; c != nil && c.Quota != nil && *c.Quota != 0 {
		period := uint64(100000)
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		limit("cpu.max", c.Quota)
		files["cpu.max"] += fmt.Sprintf(" %d", period)
	}
	if c := r.CPU; c != nil && c.Shares != nil && *c.Shares >= 2 {
		// The scale of cgroup v1 to that of v2, as every runtime converts it.
		files["cpu.weight"] = strconv.FormatUint(1+((min(*c.Shares, 262144)-2)*9999)/262142, 10)
	}
	if c := r.CPU; c != nil && c.Cpus != "" {
		files["cpuset.cpus"] = c.Cpus
	}
	for file, value := range r.Unified {
		if filepath.Base(file) == file && strings.Contains(file, ".") {
			files[file] = value
		}
	}
	return files
}

// oomKilled reports whether the kernel killed a process of the cgroup because
// memory ran out, in the cgroup or in the whole VM.
func (c *cgroup) oomKilled() bool {
	f, err := os.Open(filepath.Join(c.dir, "memory.events"))
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, ok := strings.CutPrefix(s.Text(), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// freezeTimeout bounds the wait for processes that the kernel cannot stop now.
const freezeTimeout = 10 * time.Second

// freeze stops every process of the cgroup, and returns when all have stopped,
// or lets them go on. On an error they go on.
func (c *cgroup) freeze(frozen bool) error {
	file := filepath.Join(c.dir, "cgroup.freeze")
	if !frozen {
		return writeFile(file, "0")
	}
	events, err := os.Open(filepath.Join(c.dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	if err := writeFile(file, "1"); err != nil {
		return err
	}
	for end := time.Now().Add(freezeTimeout); ; {
		if holds, err := eventHolds(events, "frozen 1"); holds || err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return errors.Join(fmt.Errorf("the processes have not stopped within %s", freezeTimeout), writeFile(file, "0"))
		}
		// The kernel announces a change of the file.
		p := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(p, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// eventHolds looks for a line of cgroup.events.
func eventHolds(events *os.File, line string) (bool, error) {
	buf := make([]byte, 4096)
	n, err := events.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	return slices.Contains(strings.Split(string(buf[:n]), "\n"), line), nil
}

// frozen reports whether the cgroup is stopped, or to be.
func (c *cgroup) frozen() bool {
	b, err := os.ReadFile(filepath.Join(c.dir, "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// remove removes the cgroup and those that the container made below it. Its
// processes are dead by then.
func (c *cgroup) remove() error {
	var errs []error
	var dirs []string
	_ = filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
