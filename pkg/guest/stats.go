package guest

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micropod/micropod/pkg/agent/api"
)

// stats reads what a container uses from its cgroup, and what the devices of the
// guest, which are its own, have carried.
func (a *agent) stats(r api.StatsRequest) (api.StatsReply, error) {
	p, err := a.container(r.ID)
	if err != nil {
		return api.StatsReply{}, err
	}
	s, err := p.cgroup.stats()
	if err != nil {
		return api.StatsReply{}, internal("cgroup", err)
	}
	s.Uptime = bootTime()
	if text, err := readProcFile("/proc/net/dev"); err == nil {
		s.Received, s.Sent = traffic(text)
	}
	return s, nil
}

// traffic sums what network devices other than the loopback have received and sent,
// in bytes: the first and the ninth number of a line of proc_pid_net(5)'s dev. Pure.
func traffic(text string) (received, sent int64) {
	for line := range strings.Lines(text) {
		name, numbers, ok := strings.Cut(line, ":")
		fields := strings.Fields(numbers)
		if !ok || strings.TrimSpace(name) == "lo" || len(fields) < 9 {
			continue
		}
		received, sent = received+count(fields[0]), sent+count(fields[8])
	}
	return received, sent
}

// stats reads the counters of the cgroup, and with it of those below. What a
// controller counts that the kernel does not have is 0.
func (c *cgroup) stats() (api.StatsReply, error) {
	texts := map[string]string{}
	for _, file := range []string{"cpu.stat", "memory.current", "memory.stat", "io.stat", "pids.current"} {
		text, err := readProcFile(filepath.Join(c.dir, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return api.StatsReply{}, err
		}
		texts[file] = text
	}
	// What lies in the page cache and could be dropped is not in use: so counts docker.
	memory := count(texts["memory.current"]) - flatKey(texts["memory.stat"], "inactive_file")
	return api.StatsReply{
		CPU:     time.Duration(flatKey(texts["cpu.stat"], "usage_usec")) * time.Microsecond,
		Memory:  max(memory, 0),
		Read:    nestedKey(texts["io.stat"], "rbytes"),
		Written: nestedKey(texts["io.stat"], "wbytes"),
		PIDs:    int(count(texts["pids.current"])),
	}, nil
}

// count reads a number, 0 where there is none.
func count(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// flatKey is the value of a key in a "flat keyed" file, as the kernel's
// documentation of cgroup v2 calls it.
func flatKey(text, key string) int64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			return count(value)
		}
	}
	return 0
}

// nestedKey is the sum of a sub-key's values in a "nested keyed" file.
func nestedKey(text, key string) (sum int64) {
	for word := range strings.FieldsSeq(text) {
		if value, ok := strings.CutPrefix(word, key+"="); ok {
			sum += count(value)
		}
	}
	return sum
}
