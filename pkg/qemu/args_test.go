package qemu

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/vmm"
)

func testConfig() vmm.Config {
	return vmm.Config{
		ID: "0123456789ab", Kernel: "/k", Initrd: "/i", CPUs: 1, MemoryMiB: 256,
		VsockPath: "/v.sock", ConsolePath: "/console", Dir: "/d",
	}
}

// after returns the values of a flag.
func after(args []string, flag string) []string {
	var values []string
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == flag {
			values = append(values, args[i+1])
		}
	}
	return values
}

// pairs takes out the flags without a value, so that flags are at even places.
func pairs(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		return a == "-no-user-config" || a == "-nodefaults" || a == "-no-reboot"
	})
}

func TestArguments(t *testing.T) {
	tcg := platform{accel: accelTCG, sandbox: true, tscKHz: 2600000}
	for _, test := range []struct {
		name   string
		change func(*vmm.Config)
		p      platform
		flag   string
		want   []string
	}{
		{"memory", func(c *vmm.Config) { c.MemoryMiB = 777 }, tcg, "-m", []string{"777M"}},
		{"cpus", func(c *vmm.Config) { c.CPUs = 5 }, tcg, "-smp", []string{"cpus=5,maxcpus=5,sockets=1,cores=5,threads=1"}},
		{"kernel with a comma", func(c *vmm.Config) { c.Kernel = "/a,b=c" }, tcg, "-kernel", []string{"/a,b=c"}},
		{"initrd", nil, tcg, "-initrd", []string{"/i"}},
		{"tcg", func(c *vmm.Config) { c.CPUs = 1 }, tcg, "-accel", []string{"tcg,thread=multi"}},
		{"tcg with two cpus", func(c *vmm.Config) { c.CPUs = 2 }, tcg, "-accel", []string{"tcg,thread=single"}},
		{"tcg cpu", nil, tcg, "-cpu", []string{"max,-erms,-fsrm"}},
		{"kvm", nil, platform{accel: accelKVM}, "-accel", []string{"kvm"}},
		{"kvm cpu", nil, platform{accel: accelKVM}, "-cpu", []string{"host"}},
		{"sandbox", nil, tcg, "-sandbox", []string{sandbox}},
		{"no sandbox", nil, platform{accel: accelTCG}, "-sandbox", nil},
		{"no monitor but qmp", nil, tcg, "-mon", []string{"chardev=qmp,mode=control"}},
		{"channels are inherited", nil, tcg, "-chardev", []string{"socket,id=agent,fd=4", "file,id=console,append=on,path=/dev/fdset/1", "socket,id=qmp,fd=5"}},
		{"no network", nil, tcg, "-netdev", nil},
		{"network", func(c *vmm.Config) {
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500}, {MAC: "02:00:00:00:00:02", MTU: 1500}}
		}, tcg, "-netdev", []string{"socket,id=nic0,fd=6", "socket,id=nic1,fd=7"}},
		{"devices of the host", func(c *vmm.Config) {
			c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500, Device: "mp-0"}, {MAC: "02:00:00:00:00:02", MTU: 1500}}
		}, tcg, "-netdev", []string{"tap,id=nic0,fd=6,vhost=off", "socket,id=nic1,fd=7"}},
		{"console is inherited", nil, tcg, "-add-fd", []string{"set=1,fd=3"}},
		{"no display", nil, tcg, "-display", []string{"none"}},
		{"tcg command line", func(c *vmm.Config) { c.Args = []string{"panic=5", "x"} }, tcg, "-append",
			[]string{baseWords + " tsc_early_khz=2600000 tsc=reliable panic=5 x"}},
		{"kvm command line", nil, platform{accel: accelKVM}, "-append", []string{baseWords}},
		{"devices", func(c *vmm.Config) { c.Disks = []vmm.Disk{{Path: "/a"}, {Path: "/b"}} }, tcg, "-device", []string{
			"virtio-blk-device,bus=virtio-mmio-bus.23,drive=disk0,werror=report,rerror=report",
			"virtio-blk-device,bus=virtio-mmio-bus.22,drive=disk1,werror=report,rerror=report",
			"virtio-serial-device,bus=virtio-mmio-bus.2,max_ports=2",
			"virtserialport,id=micropod.agent,chardev=agent,name=micropod.agent",
			"virtio-rng-device,bus=virtio-mmio-bus.1,rng=rng",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig()
			if test.change != nil {
				test.change(&c)
			}
			args, err := arguments(c, test.p)
			if err != nil {
				t.Fatal(err)
			}
			for _, flag := range []string{"-no-user-config", "-nodefaults", "-no-reboot"} {
				if !slices.Contains(args, flag) {
					t.Errorf("no %s", flag)
				}
			}
			if got := after(pairs(args), test.flag); !slices.Equal(got, test.want) {
				t.Errorf("%s\n got %q\nwant %q", test.flag, got, test.want)
			}
		})
	}
}

func TestArgumentsOfTemplates(t *testing.T) {
	c := testConfig()
	c.Disks = []vmm.Disk{{Path: "/a", ReadOnly: true}, {Path: "/b"}}
	c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500}, {MAC: "02:00:00:00:00:02", MTU: 1500, Device: "mp-0"}}
	for _, test := range []struct {
		role role
		flag string
		want []string
	}{
		{role: makeState, flag: "-chardev", want: []string{"null,id=agent", "file,id=console,append=on,path=/dev/fdset/1", "socket,id=qmp,fd=5"}},
		{role: makeState, flag: "-blockdev", want: []string{
			`{"driver":"null-co","node-name":"disk0","read-only":true,"size":1048576,"read-zeroes":true}`,
			`{"driver":"null-co","node-name":"disk1","read-only":false,"size":1048576,"read-zeroes":true}`,
		}},
		{role: makeState, flag: "-incoming"},
		{role: fromState, flag: "-incoming", want: []string{"fd:8"}},
		{role: makeState, flag: "-netdev", want: []string{"hubport,id=nic0,hubid=0", "tap,id=nic1,fd=6,vhost=off"}},
		{role: fromState, flag: "-netdev", want: []string{"socket,id=nic0,fd=6", "tap,id=nic1,fd=7,vhost=off"}},
		{role: fromState, flag: "-append", want: []string{baseWords}},
	} {
		p := platform{accel: accelTCG, role: test.role}
		args, err := arguments(c, p)
		if err != nil {
			t.Fatal(err)
		}
		if got := after(pairs(args), test.flag); !slices.Equal(got, test.want) {
			t.Errorf("role %d, %s:\n got %q\nwant %q", test.role, test.flag, got, test.want)
		}
	}
	// What the guest sees is the same.
	var devices []string
	for _, r := range []role{boot, makeState, fromState} {
		args, err := arguments(c, platform{accel: accelTCG, role: r})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(after(pairs(args), "-device"), " ")
		for i, n := range c.NICs { // but for addresses, which it changes
			text = strings.Replace(text, vmm.TemplateMAC(i), n.MAC, 1)
		}
		devices = append(devices, text)
	}
	if devices[0] != devices[1] || devices[0] != devices[2] {
		t.Errorf("devices differ: %q", devices)
	}
}

const baseWords = "console=ttyS0 8250.nr_uarts=1 quiet reboot=t panic=-1 cryptomgr.notests noreplace-smp"

func TestEveryDiskHasABus(t *testing.T) {
	c := testConfig()
	for range vmm.MaxDisks {
		c.Disks = append(c.Disks, vmm.Disk{Path: "/d"})
	}
	args, err := arguments(c, platform{accel: accelTCG})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, d := range after(pairs(args), "-device") {
		_, bus, ok := strings.Cut(d, "bus=virtio-mmio-bus.")
		if !ok {
			continue
		}
		bus, _, _ = strings.Cut(bus, ",")
		if seen[bus] || bus == "0" || strings.HasPrefix(bus, "-") {
			t.Errorf("bus %s is taken twice or is none", bus)
		}
		seen[bus] = true
	}
	if len(seen) != vmm.MaxDisks+2 {
		t.Errorf("%d buses in use", len(seen))
	}
}

func TestBlockdev(t *testing.T) {
	path := `/a,b"c\d'e é.img`
	for _, ro := range []bool{true, false} {
		var got struct {
			Driver   string `json:"driver"`
			ReadOnly bool   `json:"read-only"`
			AutoRO   *bool  `json:"auto-read-only"`
			File     struct {
				Driver   string `json:"driver"`
				Filename string `json:"filename"`
				ReadOnly bool   `json:"read-only"`
				AutoRO   *bool  `json:"auto-read-only"`
			} `json:"file"`
		}
		if err := json.Unmarshal([]byte(blockdev("disk0", vmm.Disk{Path: path, ReadOnly: ro})), &got); err != nil {
			t.Fatal(err)
		}
		if got.Driver != "raw" || got.File.Driver != "file" || got.File.Filename != path {
			t.Errorf("%+v", got)
		}
		if got.ReadOnly != ro || got.File.ReadOnly != ro || got.AutoRO == nil || *got.AutoRO || got.File.AutoRO == nil || *got.File.AutoRO {
			t.Errorf("read-only %v: %+v", ro, got)
		}
	}
}

func TestCommandLineIsBounded(t *testing.T) {
	c := testConfig()
	c.Args = []string{strings.Repeat("a", maxCommandLine-len(baseWords)-2)}
	if _, err := arguments(c, platform{accel: accelKVM}); err != nil {
		t.Error(err)
	}
	c.Args[0] += "a"
	if _, err := arguments(c, platform{accel: accelKVM}); err == nil {
		t.Error("one byte too many is accepted")
	}
}

// TestArgumentsAgree asks QEMU itself whether it knows all devices and options.
func TestArgumentsAgree(t *testing.T) {
	binary := needQEMU(t)
	out, err := exec.Command(binary, "-machine", "microvm,help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, option := range strings.Split(machine, ",")[1:] {
		name, _, _ := strings.Cut(option, "=")
		if !strings.Contains(string(out), "  "+name+"=") {
			t.Errorf("machine option %s is unknown", name)
		}
	}
}

func needQEMU(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(binaryName)
	if err != nil {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}
