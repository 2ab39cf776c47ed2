package firecracker

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

func planConfig() vmm.Config {
	return vmm.Config{
		ID: "abcdef012345", Kernel: "/r/vmlinux", Initrd: "/r/initrd", Args: []string{"quiet", "micropod.x=1,2"},
		CPUs: 2, MemoryMiB: 512,
		Disks:     []vmm.Disk{{Path: "/r/a.erofs", ReadOnly: true}, {Path: "/r/rw.img"}},
		VsockPath: "/r/vsock.sock", ConsolePath: "/r/console.log", ConsoleLimit: 1 << 20, Dir: "/r/vmm",
	}
}

func TestPlan(t *testing.T) {
	requests, err := plan(planConfig())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`PUT /machine-config {"vcpu_count":2,"mem_size_mib":512}`,
		`PUT /boot-source {"kernel_image_path":"/r/vmlinux","initrd_path":"/r/initrd","boot_args":"` +
			`console=ttyS0 8250.nr_uarts=1 quiet reboot=k panic=-1 pci=off cryptomgr.notests i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce quiet micropod.x=1,2"}`,
		`PUT /drives/vda {"drive_id":"vda","is_root_device":false,"path_on_host":"/r/a.erofs","is_read_only":true}`,
		`PUT /drives/vdb {"drive_id":"vdb","is_root_device":false,"path_on_host":"/r/rw.img","cache_type":"Writeback"}`,
		`PUT /vsock {"guest_cid":3,"uds_path":"/r/vsock.sock"}`,
		`PUT /entropy {}`,
	}
	for i, r := range requests {
		body, err := json.Marshal(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.String() + " " + string(body); i >= len(want) || got != want[i] {
			t.Errorf("request %d is\n%s, want\n%s", i, got, want[min(i, len(want)-1)])
		}
		// What the plan makes works on the oldest release.
		oldest := minimum()
		if _, err := r.build(context.Background(), &oldest); err != nil {
			t.Error(err)
		}
	}
	if len(requests) != len(want) {
		t.Errorf("%d requests, want %d", len(requests), len(want))
	}
}

func TestPlanDisks(t *testing.T) {
	c := planConfig()
	c.Disks = nil
	for range maxDevices - 2 {
		c.Disks = append(c.Disks, vmm.Disk{Path: "/d", ReadOnly: true})
	}
	requests, err := plan(c)
	if err != nil {
		t.Fatal(err)
	}
	if last := requests[len(requests)-3]; last.Path != "/drives/vdo" {
		t.Errorf("last disk is %s", last)
	}
	c.Disks = append(c.Disks, vmm.Disk{Path: "/d"})
	if _, err := plan(c); err == nil || !strings.Contains(err.Error(), "16 disks and NICs: firecracker has room for 15") {
		t.Errorf("got %v", err)
	}
}

func TestPlanNICs(t *testing.T) {
	c := planConfig()
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 65520}, {MAC: "02:00:00:00:00:02", MTU: 1500, Device: "mp-0"}}
	requests, err := plan(c)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range requests {
		if strings.HasPrefix(r.Path, "/network-interfaces") {
			got = append(got, r.Path+" "+fmt.Sprint(r.Body))
		}
	}
	want := []string{
		"/network-interfaces/eth0 " + fmt.Sprint(NetworkInterface{IfaceID: "eth0", HostDevName: "tap_0", GuestMAC: "02:00:00:00:00:01"}),
		"/network-interfaces/eth1 " + fmt.Sprint(NetworkInterface{IfaceID: "eth1", HostDevName: "mp-0", GuestMAC: "02:00:00:00:00:02"}),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	made := taps(c, 77)
	if want := []tap{{"tap_0", 77, 65520, false}, {"mp-0", 77, 1500, true}}; !slices.Equal(made, want) {
		t.Errorf("taps %v, want %v", made, want)
	}
}

// TestCommandLineBudget: with what Firecracker adds itself, written here as it
// writes it, the longest line accepted fills 2048 bytes with its final NUL.
func TestCommandLineBudget(t *testing.T) {
	for _, disks := range []int{0, 2, maxDevices - 2} {
		c := planConfig()
		c.Disks = make([]vmm.Disk, disks)
		for i := range c.Disks {
			c.Disks[i].Path = "/d"
		}
		longest := 0
		for n := 1; n < maxCmdline; n++ {
			c.Args = []string{strings.Repeat("a", n)}
			if _, err := plan(c); err != nil {
				if !strings.Contains(err.Error(), "kernel command line of") {
					t.Fatal(err)
				}
				break
			}
			longest = n
		}
		line := ownArgs + " " + strings.Repeat("a", longest) + " pci=off"
		for i := range disks + 2 {
			line += fmt.Sprintf(" virtio_mmio.device=4K@0x%x:%d", 0xc0001000+i*4096, 5+i)
		}
		slack := maxCmdline - len(line+"\x00")
		if slack < 0 || slack > 5+disks {
			t.Errorf("%d disks: %d bytes left of %d", disks, slack, maxCmdline)
		}
		if longest < 1200 {
			t.Errorf("%d disks: only %d bytes for the caller", disks, longest)
		}
	}
}

// TestBadConfigs: nothing is made for a Config that the contract forbids.
func TestBadConfigs(t *testing.T) {
	for name, change := range map[string]func(*vmm.Config){
		"id with a slash": func(c *vmm.Config) { c.ID = "abcdef/../0123" },
		"33 cpus":         func(c *vmm.Config) { c.CPUs = 33 },
		"31 MiB":          func(c *vmm.Config) { c.MemoryMiB = 31 },
		"no kernel":       func(c *vmm.Config) { c.Kernel = "" },
		"long vsock path": func(c *vmm.Config) { c.VsockPath = "/" + strings.Repeat("a", vmm.MaxSocketPath) },
		"two words":       func(c *vmm.Config) { c.Args = []string{"a init=/bin/sh"} },
		"separator":       func(c *vmm.Config) { c.Args = []string{"--"} },
		"quote":           func(c *vmm.Config) { c.Args = []string{`a="b`} },
		"too long":        func(c *vmm.Config) { c.Args = []string{strings.Repeat("a", maxCmdline)} },
	} {
		c := setup(t)
		change(&c)
		if _, err := newDriver(t, "ok").Start(context.Background(), c); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got := names(t, c); got != before {
			t.Errorf("%s: afterwards there are: %s", name, got)
		}
	}
	c := setup(t)
	c.Dir = filepath.Join(c.Dir, strings.Repeat("a", 90))
	if _, err := newDriver(t, "ok").Start(context.Background(), c); err == nil || !strings.Contains(err.Error(), "a socket can have 107") {
		t.Errorf("long dir: %v", err)
	}
}

func TestPlanLimits(t *testing.T) {
	for _, c := range []struct {
		limits   vmm.DiskLimits
		readOnly bool
		want     string
	}{
		{vmm.DiskLimits{}, false, `null`},
		{vmm.DiskLimits{WriteBytes: 1 << 20, WriteOps: 5}, true, `null`},
		{vmm.DiskLimits{ReadBytes: 1 << 20}, true, `{"bandwidth":{"size":1048576,"refill_time":1000}}`},
		{vmm.DiskLimits{ReadOps: 7}, false, `{"ops":{"size":7,"refill_time":1000}}`},
		{vmm.DiskLimits{ReadBytes: 3, WriteBytes: 2, ReadOps: 10, WriteOps: 20}, false,
			`{"bandwidth":{"size":2,"refill_time":1000},"ops":{"size":10,"refill_time":1000}}`},
		{vmm.DiskLimits{ReadBytes: 3, WriteBytes: 2}, true, `{"bandwidth":{"size":3,"refill_time":1000}}`},
	} {
		got, err := json.Marshal(drive(0, vmm.Disk{Path: "/d", ReadOnly: c.readOnly, Limits: c.limits}).RateLimiter)
		if err != nil || string(got) != c.want {
			t.Errorf("%+v, read-only %v: %s, %v, want %s", c.limits, c.readOnly, got, err, c.want)
		}
	}
}
