package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processInfo is what proc(5) says of a process.
type processInfo struct {
	name   string
	parent int
	ticks  int64 // of CPU time, those that it has waited for included
}

// cpuBelow is the CPU time so far of all descendants of a process, those that
// they have waited for included.
func cpuBelow(top int) (time.Duration, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid, p := range all {
		if below(all, pid, top) {
			sum += p.ticks
		}
	}
	return time.Duration(sum) * (time.Second / userHZ), nil
}

const userHZ = 100 // of all architectures that MicroPod knows, proc(5)

// below tells whether a process is a descendant of top.
func below(all map[int]processInfo, pid, top int) bool {
	for p := all[pid].parent; p != 0; p = all[p].parent {
		if p == top {
			return true
		}
	}
	return false
}

// processes reads what there is of every process.
func processes() (map[int]processInfo, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]processInfo{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		if all[pid], err = parseStat(b); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func parseStat(b []byte) (p processInfo, err error) {
	begin, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if begin < 0 || end < begin {
		return p, fmt.Errorf("no name in %q", b)
	}
	p.name = string(b[begin+1 : end])
	// After the program's name: state, parent, …; utime is field 14.
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 15 {
		return p, fmt.Errorf("too few fields in %q", b)
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return p, err
	}
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return p, err
		}
		p.ticks += n
	}
	return p, nil
}
