package api

import (
	"fmt"
	"math"
	"time"
)

// MethodStats asks what a container uses.
const MethodStats Method = "stats"

// StatsRequest asks for the use of a container.
type StatsRequest struct {
	ID string `json:"id"`
}

// StatsReply is what the guest's kernel counts for a container: its cgroup v2, and
// the network devices of the guest. A counter that the kernel does not have is 0.
type StatsReply struct {
	// Uptime of the guest: the clock that CPU is to be compared with.
	Uptime  time.Duration `json:"uptime"`
	CPU     time.Duration `json:"cpu"`     // user and system, since the start
	Memory  int64         `json:"memory"`  // bytes, without the part of the page cache that is not in use
	Read    int64         `json:"read"`    // bytes from disks, since the start
	Written int64         `json:"written"` // bytes to disks, since the start
	// Received and Sent are bytes of the guest's network devices.
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`
	PIDs     int   `json:"pids"` // processes and threads
}

// Check reports whether a guest's numbers are within their bounds: those of
// what a sum of two still holds.
func (s *StatsReply) Check() error {
	for _, n := range []int64{int64(s.Uptime), int64(s.CPU), s.Memory, s.Read, s.Written, s.Received, s.Sent} {
		if n < 0 || n > math.MaxInt64/4 {
			return fmt.Errorf("statistics %+v: %w", *s, ErrFrame)
		}
	}
	if s.PIDs < 0 || s.PIDs > maxPID {
		return fmt.Errorf("statistics of %d processes: %w", s.PIDs, ErrFrame)
	}
	return nil
}
