package main

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
)

const statsTable = `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.VMMem}}\t{{.Disk}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`

// statsRow holds the fields of --format: docker's, and Disk and VMMem of the host.
type statsRow struct {
	BlockIO, CPUPerc, Container, Disk, ID, MemPerc, MemUsage, Name, NetIO, PIDs, VMMem string
}

func statsHeader() statsRow {
	return statsRow{
		BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", Disk: "DISK", ID: "CONTAINER ID", MemPerc: "MEM %",
		MemUsage: "MEM USAGE / LIMIT", Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS", VMMem: "VM MEM",
	}
}

// unknownStat is docker's word for what is not known.
const unknownStat = "--"

// newStatsRow is the text of a look: the guest's numbers if it answered, and
// those of the host in any case. Nothing is known before the first look.
func newStatsRow(ref string, u manager.Usage, cpu float64, read, noTrunc, escaped bool) statsRow {
	id := u.ID
	if !noTrunc {
		id = shortID(id)
	}
	r := statsRow{
		Container: ref, ID: id, Name: u.Name, Disk: unknownStat, VMMem: unknownStat,
		BlockIO: unknownStat, CPUPerc: unknownStat, MemPerc: unknownStat, MemUsage: "-- / --", NetIO: unknownStat, PIDs: unknownStat,
	}
	if ref == "" {
		r.Container = id
	}
	if escaped {
		r.Container, r.Name = escape(r.Container), escape(r.Name)
	}
	if !read {
		r.Name = unknownStat
		return r
	}
	r.Disk, r.VMMem = humanSize(u.Disk), units.BytesSize(float64(u.VMMemory))
	switch {
	case u.Guest != nil:
		r.addGuest(*u.Guest, u.MemoryLimit, cpu)
	case !u.Running:
		r.addGuest(manager.GuestUsage{}, 0, 0)
	}
	return r
}

func (r *statsRow) addGuest(g manager.GuestUsage, limit int64, cpu float64) {
	part := 0.0
	if limit > 0 {
		part = float64(g.Memory) / float64(limit) * 100
	}
	r.CPUPerc, r.MemPerc = fmt.Sprintf("%.2f%%", cpu), fmt.Sprintf("%.2f%%", part)
	r.MemUsage = units.BytesSize(float64(g.Memory)) + " / " + units.BytesSize(float64(limit))
	r.NetIO = humanSize(g.Received) + " / " + humanSize(g.Sent)
	r.BlockIO = humanSize(g.Read) + " / " + humanSize(g.Written)
	r.PIDs = strconv.Itoa(g.PIDs)
}

// humanSize is docker's form of a size on a disk.
func humanSize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
