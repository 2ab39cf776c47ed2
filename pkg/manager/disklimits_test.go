package manager

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

func TestLimitDisks(t *testing.T) {
	on := func(path string, rates ...uint64) (out []state.ThrottleDevice) {
		for _, r := range rates {
			out = append(out, state.ThrottleDevice{Path: path, Rate: r})
		}
		return out
	}
	for name, c := range map[string]struct {
		h    state.HostConfig
		want vmm.DiskLimits
		err  string
	}{
		"none": {},
		"all": {h: state.HostConfig{
			DeviceReadBps: on("/dev/vda", 1), DeviceWriteBps: on("/dev/vdb", 2), DeviceReadIOps: on("/dev/vdb", 3), DeviceWriteIOps: on("/dev/vda", 4),
		}, want: vmm.DiskLimits{ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}},
		"the last counts": {h: state.HostConfig{DeviceReadBps: on("/dev/vda", 5, 6)}, want: vmm.DiskLimits{ReadBytes: 6}},
		"zero is none":    {h: state.HostConfig{DeviceReadBps: on("/dev/vda", 5, 0)}},
		"more than any VMM knows": {h: state.HostConfig{DeviceWriteBps: on("/dev/vda", 1<<62)},
			want: vmm.DiskLimits{WriteBytes: vmm.MaxDiskLimit}},
		"no disk":         {h: state.HostConfig{DeviceReadBps: on("/dev/vdzz", 5)}, err: "no such device: /dev/vdzz"},
		"no block device": {h: state.HostConfig{DeviceReadBps: on("/dev/null", 5)}, err: "no such device: /dev/null"},
	} {
		disks := []vmm.Disk{{Path: "/a", ReadOnly: true}, {Path: "/b"}}
		err := limitDisks(disks, c.h)
		if c.err != "" {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := []vmm.Disk{{Path: "/a", ReadOnly: true, Limits: c.want}, {Path: "/b", Limits: c.want}}
		if err != nil || !slices.Equal(disks, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, disks, err, want)
		}
	}
}
