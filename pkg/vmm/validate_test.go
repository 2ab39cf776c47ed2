package vmm

import (
	"strings"
	"testing"
)

func good() Config {
	return Config{ID: "0123456789ab", Kernel: "/k", Initrd: "/i", Args: []string{"quiet", "a.b=c,d:e/f"}, CPUs: 1,
		MemoryMiB: 128, Disks: []Disk{{Path: "/d"}}, VsockPath: "/v", ConsolePath: "/c", NICs: []NIC{{MAC: "02:00:00:00:00:01", MTU: 1500, Device: "mp-0123456789ab"}}, Dir: "/d"}
}

func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"short id":       func(c *Config) { c.ID = "0123456789a" },
		"long id":        func(c *Config) { c.ID = strings.Repeat("a", 65) },
		"id in capitals": func(c *Config) { c.ID = "0123456789AB" },
		"id with a path": func(c *Config) { c.ID = "../../../../etc" },
		"id with a NUL":  func(c *Config) { c.ID = "0123456789a\x00" },
		"no kernel":      func(c *Config) { c.Kernel = "" },
		"no initrd":      func(c *Config) { c.Initrd = "" },
		"no CPU":         func(c *Config) { c.CPUs = 0 },
		"CPUs":           func(c *Config) { c.CPUs = MaxCPUs + 1 },
		"little memory":  func(c *Config) { c.MemoryMiB = MinMemoryMiB - 1 },
		"much memory":    func(c *Config) { c.MemoryMiB = MaxMemoryMiB + 1 },
		"disks":          func(c *Config) { c.Disks = make([]Disk, MaxDisks+1) },
		"no disk path":   func(c *Config) { c.Disks = []Disk{{}} },
		"NICs":           func(c *Config) { c.NICs = make([]NIC, MaxNICs+1) },
		"no address":     func(c *Config) { c.NICs[0].MAC = "" },
		"no MAC":         func(c *Config) { c.NICs[0].MAC = "02:00:00:00:00:01,script=/x" },
		"long MAC":       func(c *Config) { c.NICs[0].MAC = "02:00:00:00:00:01:00:01" },
		"multicast MAC":  func(c *Config) { c.NICs[0].MAC = "03:00:00:00:00:01" },
		"zero MAC":       func(c *Config) { c.NICs[0].MAC = "00:00:00:00:00:00" },
		"small MTU":      func(c *Config) { c.NICs[0].MTU = MinMTU - 1 },
		"long device":    func(c *Config) { c.NICs[0].Device = "mp-0123456789abc" },
		"other device":   func(c *Config) { c.NICs[0].Device = "mp%d" },
		"device twice": func(c *Config) {
			c.NICs = append(c.NICs, NIC{MAC: "02:00:00:00:00:02", MTU: 1500, Device: c.NICs[0].Device})
		},
		"MAC twice":      func(c *Config) { c.NICs = append(c.NICs, NIC{MAC: c.NICs[0].MAC, MTU: 1500}) },
		"template's MAC": func(c *Config) { c.NICs[0].MAC = TemplateMAC(1) },
		"large MTU":      func(c *Config) { c.NICs[0].MTU = MaxMTU + 1 },
		"no socket":      func(c *Config) { c.VsockPath = "" },
		"long socket":    func(c *Config) { c.VsockPath = "/" + strings.Repeat("v", MaxSocketPath) },
		"no console":     func(c *Config) { c.ConsolePath = "" },
		"console limit":  func(c *Config) { c.ConsoleLimit = -1 },
		"no dir":         func(c *Config) { c.Dir = "" },
		"empty word":     func(c *Config) { c.Args = []string{""} },
		"two words":      func(c *Config) { c.Args = []string{"a b"} },
		"quote":          func(c *Config) { c.Args = []string{`a="b"`} },
		"single quote":   func(c *Config) { c.Args = []string{"a='b'"} },
		"new line":       func(c *Config) { c.Args = []string{"a\nb"} },
		"last new line":  func(c *Config) { c.Args = []string{"a\n"} },
		"end of options": func(c *Config) { c.Args = []string{"--"} },
		"not ASCII":      func(c *Config) { c.Args = []string{"é"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			change(&c)
			if err := c.Validate(); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestDiskLimits(t *testing.T) {
	for limit, ok := range map[uint64]bool{0: true, 1: true, MaxDiskLimit: true, MaxDiskLimit + 1: false} {
		for _, l := range []DiskLimits{{ReadBytes: limit}, {WriteBytes: limit}, {ReadOps: limit}, {WriteOps: limit}} {
			c := good()
			c.Disks = []Disk{{Path: "/d", Limits: l}}
			if err := c.Validate(); (err == nil) != ok {
				t.Errorf("%+v: %v", l, err)
			}
		}
	}
}
