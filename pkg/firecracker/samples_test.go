package firecracker

import "encoding/json"

func ptr[T any](v T) *T { return &v }

func limiter() *RateLimiter {
	return &RateLimiter{Bandwidth: &TokenBucket{1000, 100, 10}, Ops: &TokenBucket{5, 100, 1}}
}

// fullSamples are valid requests that together set every field there is.
func fullSamples() []Request {
	bucket := &TokenBucket{Size: 1 << 40, RefillTime: 1000, OneTimeBurst: 7}
	return []Request{
		PutAction(InstanceStart), PutAction(FlushMetrics), PutAction(SendCtrlAltDel),
		PutBootSource(BootSource{"/k", "/i", "quiet"}),
		PutMachineConfig(MachineConfig{32, 1024, true, true, "2M", "T2"}),
		PutMachineConfig(MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: "Transparent"}),
		PatchMachineConfig(MachineConfigPatch{ptr(2), ptr(128), ptr(false), ptr(false), ptr("None"), ptr("None")}),
		PatchMachineConfig(MachineConfigPatch{HugePages: ptr("Transparent")}),
		PutCPUConfig(CPUConfig{
			KVMCapabilities: []string{"121", "!56"},
			CPUIDModifiers:  []CPUIDLeafMod{{"0x1", "0x0", 1, []CPUIDRegisterMod{{"eax", "0bxx01"}}}},
			MSRModifiers:    []RegisterMod{{"0x10a", "0b1"}},
			RegModifiers:    []RegisterMod{{"0x603000000013c020", "0b1"}},
			VCPUFeatures:    []VCPUFeatureWord{{0, "0b1100000"}},
		}),
		PutDrive(Drive{DriveID: "vda", IsRootDevice: true, PathOnHost: "/d", IsReadOnly: true, PartUUID: "6a-01",
			CacheType: "Writeback", IOEngine: "Async", RateLimiter: limiter()}),
		PutDrive(Drive{DriveID: "vhost_1", Socket: "/s", CacheType: "Unsafe"}),
		PatchDrive(DrivePatch{"vda", "/d2", limiter()}),
		DeleteDrive("vda"),
		PutPmem(Pmem{"pmem0", "/p", true, true, limiter()}), PutPmem(Pmem{ID: "pmem0", PathOnHost: "/p"}),
		PatchPmem(PmemPatch{"pmem0", limiter()}),
		DeletePmem("pmem0"),
		PutNetworkInterface(NetworkInterface{"eth0", "tap-0123456789a", "06:00:ac:10:00:02", 1500, limiter(), limiter()}),
		PutNetworkInterface(NetworkInterface{IfaceID: "eth0", HostDevName: "tap0"}),
		PatchNetworkInterface(NetworkInterfacePatch{"eth0", limiter(), limiter()}),
		DeleteNetworkInterface("eth0"),
		PutVsock(Vsock{3, "/v"}),
		PutEntropy(Entropy{limiter()}),
		PutSerial(Serial{"/s", bucket}), PutSerial(Serial{SerialOutPath: "/s"}),
		PutLogger(Logger{"/l", "Warn", true, true, "api_server"}),
		PutMetrics(Metrics{"/m", true, map[string]string{"a": "b"}}), PutMetrics(Metrics{MetricsPath: "/m"}),
		PutMMDSConfig(MMDSConfig{[]string{"eth0"}, "V2", "169.254.170.2", true}),
		PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"eth0"}}),
		PutMMDS(json.RawMessage(`{"a":[1,null]}`)), PatchMMDS(json.RawMessage(`{"a":null}`)),
		PutBalloon(Balloon{64, true, 1, true, true}), PutBalloon(Balloon{AmountMiB: 1}),
		PatchBalloon(BalloonPatch{0}), PatchBalloonStats(BalloonStatsPatch{5}),
		StartBalloonHinting(BalloonHintingStart{ptr(false)}), StopBalloonHinting(),
		PutMemoryHotplug(MemoryHotplug{1024, 4, 256}), PatchMemoryHotplug(MemoryHotplugPatch{0}),
		PatchVM(Paused), PatchVM(Resumed),
		CreateSnapshot(SnapshotCreate{"/s", "/m", "Diff"}),
		LoadSnapshot(SnapshotLoad{"/s", MemoryBackend{"Uffd", "/u"}, true, true,
			[]NetworkOverride{{"eth0", "tap1"}}, &VsockOverride{"/v"}, true, "None"}),
		LoadSnapshot(SnapshotLoad{SnapshotPath: "/s", MemBackend: MemoryBackend{"File", "/m"}, ClockRealtime: true}),
		LoadSnapshot(SnapshotLoad{SnapshotPath: "/s", MemBackend: MemoryBackend{"File", "/m"}, TrackDirtyPages: true}),
	}
}

// leanSamples are valid requests that set only what must be set.
func leanSamples() []Request {
	return []Request{
		PutAction(InstanceStart), PutBootSource(BootSource{KernelImagePath: "/k"}),
		PutMachineConfig(MachineConfig{VCPUCount: 1, MemSizeMiB: 128}), PutCPUConfig(CPUConfig{}),
		PutDrive(Drive{DriveID: "a", Socket: "/s"}), PutDrive(Drive{DriveID: "a", PathOnHost: "/d"}),
		PatchDrive(DrivePatch{DriveID: "a"}), PutPmem(Pmem{ID: "a", PathOnHost: "/p"}), PatchPmem(PmemPatch{ID: "a"}),
		PutNetworkInterface(NetworkInterface{IfaceID: "a", HostDevName: "t"}),
		PatchNetworkInterface(NetworkInterfacePatch{IfaceID: "a"}), PutVsock(Vsock{3, "/v"}), PutEntropy(Entropy{}),
		PutSerial(Serial{}), PutLogger(Logger{}), PutMetrics(Metrics{MetricsPath: "/m"}),
		PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"a"}}), PutBalloon(Balloon{}), PatchBalloon(BalloonPatch{}),
		PatchBalloonStats(BalloonStatsPatch{}), StartBalloonHinting(BalloonHintingStart{}),
		PutMemoryHotplug(MemoryHotplug{TotalSizeMiB: 128}), PatchMemoryHotplug(MemoryHotplugPatch{}), PatchVM(Paused),
		CreateSnapshot(SnapshotCreate{SnapshotPath: "/s", MemFilePath: "/m"}),
		LoadSnapshot(SnapshotLoad{SnapshotPath: "/s", MemBackend: MemoryBackend{"File", "/m"}}),
	}
}

// badSamples are requests over a limit that involves more than one field, or
// that no table of ranges can say.
func badSamples() map[string]Request {
	many := make([]byte, maxCmdline)
	for i := range many {
		many[i] = 'a'
	}
	return map[string]Request{
		"smt with odd vcpus":        PutMachineConfig(MachineConfig{VCPUCount: 3, MemSizeMiB: 128, SMT: true}),
		"odd memory in huge pages":  PutMachineConfig(MachineConfig{VCPUCount: 1, MemSizeMiB: 129, HugePages: "2M"}),
		"nothing to patch":          PatchMachineConfig(MachineConfigPatch{}),
		"long command line":         PutBootSource(BootSource{KernelImagePath: "/k", BootArgs: string(many)}),
		"drive without a file":      PutDrive(Drive{DriveID: "a"}),
		"drive with file and vhost": PutDrive(Drive{DriveID: "a", PathOnHost: "/d", Socket: "/s"}),
		"vhost read-only":           PutDrive(Drive{DriveID: "a", Socket: "/s", IsReadOnly: true}),
		"vhost with engine":         PutDrive(Drive{DriveID: "a", Socket: "/s", IOEngine: "Sync"}),
		"partuuid but not root":     PutDrive(Drive{DriveID: "a", PathOnHost: "/d", PartUUID: "6a-01"}),
		"drive id with a dash":      PutDrive(Drive{DriveID: "a-b", PathOnHost: "/d"}),
		"drive id with a slash":     PutDrive(Drive{DriveID: "../vm", PathOnHost: "/d"}),
		"drive id with a query":     PatchDrive(DrivePatch{DriveID: "a?b"}),
		"no drive id":               DeleteDrive(""),
		"deleted id with a slash":   DeleteNetworkInterface("a/../b?"),
		"pmem id with a dot":        PutPmem(Pmem{ID: "a.b", PathOnHost: "/p"}),
		"long tap name":             PutNetworkInterface(NetworkInterface{IfaceID: "a", HostDevName: "0123456789abcdef"}),
		"no tap name":               PutNetworkInterface(NetworkInterface{IfaceID: "a"}),
		"mac with dashes":           PutNetworkInterface(NetworkInterface{IfaceID: "a", HostDevName: "t", GuestMAC: "06-00-00-00-00-01"}),
		"mac of eight bytes":        PutNetworkInterface(NetworkInterface{IfaceID: "a", HostDevName: "t", GuestMAC: "06:00:00:00:00:01:02:03"}),
		"long vsock path":           PutVsock(Vsock{3, "/" + string(many[:maxSunPath])}),
		"no vsock path":             PutVsock(Vsock{GuestCID: 3}),
		"mmds without interface":    PutMMDSConfig(MMDSConfig{}),
		"mmds address too low":      PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"a"}, IPv4Address: "169.254.0.255"}),
		"mmds address too high":     PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"a"}, IPv4Address: "169.254.255.0"}),
		"mmds address elsewhere":    PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"a"}, IPv4Address: "::1"}),
		"hotplug block no power":    PutMemoryHotplug(MemoryHotplug{TotalSizeMiB: 384, BlockSizeMiB: 3, SlotSizeMiB: 384}),
		"hotplug slot no multiple":  PutMemoryHotplug(MemoryHotplug{TotalSizeMiB: 129, BlockSizeMiB: 2, SlotSizeMiB: 129}),
		"hotplug total no multiple": PutMemoryHotplug(MemoryHotplug{TotalSizeMiB: 200}),
		"snapshot without backend":  LoadSnapshot(SnapshotLoad{SnapshotPath: "/s"}),
		"body over 51200 bytes":     PutMMDS(json.RawMessage(`"` + string(make([]byte, 0)) + string(blanks(51200)) + `"`)),
		"no JSON":                   PutMMDS(json.RawMessage(`{`)),
	}
}

func blanks(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = ' '
	}
	return b
}
