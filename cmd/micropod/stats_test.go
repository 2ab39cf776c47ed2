package main

import (
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/manager"
)

func TestStatsRow(t *testing.T) {
	id := strings.Repeat("ab", 32)
	guest := &manager.GuestUsage{Memory: 3 << 20, Read: 1_500_000, Written: 999, Received: 2_000, Sent: 77, PIDs: 2}
	u := manager.Usage{ID: id, Name: "web", Running: true, Guest: guest, MemoryLimit: 12 << 20, VMMemory: 100 << 20, Disk: 4_200_000}
	silent, stopped := u, u
	silent.Guest, stopped.Guest = nil, nil
	stopped.Running, stopped.VMMemory = false, 0
	for _, c := range []struct {
		name    string
		u       manager.Usage
		read    bool
		noTrunc bool
		want    string
	}{
		{"all", u, true, false, "abababababab web 12.35% 3MiB / 12MiB 25.00% 100MiB 4.2MB 2kB / 77B 1.5MB / 999B 2"},
		{"no answer", silent, true, false, "abababababab web -- -- / -- -- 100MiB 4.2MB -- -- --"},
		{"stopped", stopped, true, false, "abababababab web 0.00% 0B / 0B 0.00% 0B 4.2MB 0B / 0B 0B / 0B 0"},
		{"not read yet", manager.Usage{ID: id}, false, true, id + " -- -- -- / -- -- -- -- -- -- --"},
	} {
		r := newStatsRow("", c.u, 12.345, c.read, c.noTrunc, true)
		got := strings.Join([]string{r.ID, r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.VMMem, r.Disk, r.NetIO, r.BlockIO, r.PIDs}, " ")
		if got != c.want || r.Container != r.ID {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	if r := newStatsRow("\x1b[2Jweb", u, 0, true, false, true); strings.Contains(r.Container, "\x1b") {
		t.Errorf("container %q", r.Container)
	}
}

func TestCPUPercent(t *testing.T) {
	second := time.Second
	before := manager.GuestUsage{Uptime: 10 * second, CPU: 5 * second}
	for _, c := range []struct {
		uptime, cpu time.Duration
		want        float64
	}{
		{12 * second, 6 * second, 50}, {11 * second, 7 * second, 200}, {11 * second, 5 * second, 0},
		{10 * second, 6 * second, 0}, {2 * second, second, 0}, {20 * second, second, 0},
	} {
		if got := (manager.GuestUsage{Uptime: c.uptime, CPU: c.cpu}).CPUPercent(before); got != c.want {
			t.Errorf("%v of %v: %v, want %v", c.cpu, c.uptime, got, c.want)
		}
	}
}

func TestStatsScreen(t *testing.T) {
	v := &statsView{}
	text := "head\none\ntwo\n"
	for _, c := range []struct {
		height int
		want   string
	}{
		{0, "\x1b[2J\x1b[Hhead\x1b[K\none\x1b[K\ntwo\x1b[K\n\x1b[J"},
		{4, "\x1b[Hhead\x1b[K\none\x1b[K\ntwo\x1b[K\n\x1b[J"},
		{3, "\x1b[Hhead\x1b[K\none\x1b[K\n\x1b[J"},
	} {
		if got := v.screen(text, c.height); got != c.want {
			t.Errorf("height %d: %q, want %q", c.height, got, c.want)
		}
	}
}
