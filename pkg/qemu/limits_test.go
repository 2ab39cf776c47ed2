package qemu

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

// monitor is a QEMU that was started with the disks of a Config, but does not
// run a guest.
type monitor struct {
	t   *testing.T
	in  *json.Encoder
	out *bufio.Scanner
}

func monitorOf(t *testing.T, list []vmm.Disk) *monitor {
	t.Helper()
	args := append([]string{"-machine", machine, "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"}, disks(list, boot)...)
	cmd := exec.Command(needQEMU(t), args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	m := &monitor{t: t, in: json.NewEncoder(in), out: bufio.NewScanner(out)}
	m.ask("qmp_capabilities", nil, nil)
	return m
}

// ask makes a call of QMP.
func (m *monitor) ask(command string, arguments, result any) {
	m.t.Helper()
	call := map[string]any{"execute": command}
	if arguments != nil {
		call["arguments"] = arguments
	}
	if err := m.in.Encode(call); err != nil {
		m.t.Fatal(err)
	}
	for m.out.Scan() {
		var answer struct {
			Return json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(m.out.Bytes(), &answer); err != nil {
			m.t.Fatal(err)
		}
		switch {
		case answer.Error != nil:
			m.t.Fatalf("%s: %s", command, answer.Error)
		case answer.Return == nil: // the greeting, an event
			continue
		case result != nil:
			if err := json.Unmarshal(answer.Return, result); err != nil {
				m.t.Fatal(err)
			}
		}
		return
	}
	m.t.Fatalf("%s: qemu ended", command)
}

// TestLimits asks QEMU itself which limits are in effect, and on which disk.
func TestLimits(t *testing.T) {
	var list []vmm.Disk
	for _, d := range []vmm.Disk{
		{ReadOnly: true, Limits: vmm.DiskLimits{ReadBytes: 1 << 20, ReadOps: vmm.MaxDiskLimit}},
		{},
		{Limits: vmm.DiskLimits{ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}},
	} {
		d.Path = filepath.Join(t.TempDir(), `a,b"c`)
		if err := os.WriteFile(d.Path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	m := monitorOf(t, list)
	type limits struct {
		ReadBytes  uint64 `json:"bps-read"`
		WriteBytes uint64 `json:"bps-write"`
		ReadOps    uint64 `json:"iops-read"`
		WriteOps   uint64 `json:"iops-write"`
	}
	for _, i := range []int{0, 2} {
		var got limits
		m.ask("qom-get", map[string]string{"path": "/objects/" + limitsOf([]string{"disk0", "", "disk2"}[i]), "property": "limits"}, &got)
		if got != limits(list[i].Limits) {
			t.Errorf("disk %d: %+v, want %+v", i, got, list[i].Limits)
		}
	}
	var devices []struct {
		Inserted struct {
			Driver string `json:"drv"`
			Node   string `json:"node-name"`
			RO     bool   `json:"ro"`
		}
	}
	m.ask("query-block", nil, &devices)
	drivers := map[string]string{}
	for _, d := range devices {
		drivers[d.Inserted.Node] = d.Inserted.Driver
		if d.Inserted.RO != (d.Inserted.Node == "disk0") {
			t.Errorf("%+v", d)
		}
	}
	if drivers["disk0"] != "throttle" || drivers["disk1"] != "raw" || drivers["disk2"] != "throttle" || len(drivers) != 3 {
		t.Errorf("disks %v", drivers)
	}
}
