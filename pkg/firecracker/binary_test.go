package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/vmm"
)

// These tests run the real program. Without a boot it needs no KVM.

// realBinary looks in the folder that MICROPOD_TEST_FIRECRACKER names, then on
// PATH.
func realBinary(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("MICROPOD_TEST_FIRECRACKER"); dir != "" {
		path, err := filepath.Abs(filepath.Join(dir, "firecracker"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			return path
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	path, err := exec.LookPath("firecracker")
	if err != nil {
		const missing = "no firecracker in MICROPOD_TEST_FIRECRACKER or on PATH"
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return path
}

// realMachine runs the driver's steps on the real program, up to the last one
// named. It is abandoned at the end of the test.
func realMachine(t *testing.T, c vmm.Config, configure bool) *machine {
	t.Helper()
	d := New(Options{Binary: realBinary(t)})
	var err error
	if d.host, err = fakeHost(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	m, err := d.prepare(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.abandon)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	steps := []func(context.Context) error{m.clearSockets, m.openConsole, m.openLog, m.startProcess, m.waitReady}
	if configure {
		steps = append(steps, m.configure)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			t.Fatal(m.explain(err))
		}
	}
	return m
}

func TestRealConfigure(t *testing.T) {
	c := setup(t)
	c.CPUs, c.MemoryMiB, c.Args = 2, 192, []string{"quiet", "a.b=c"}
	m := realMachine(t, c, true)
	ctx := context.Background()
	if text := m.said.String() + m.stderr.String(); text != "" {
		t.Errorf("it complained: %s", text)
	}
	if got := names(t, c); got != during {
		t.Errorf("there are: %s", got)
	}
	for _, path := range []string{m.files.api, m.files.log, c.VsockPath} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	info, err := m.api.Instance(ctx)
	if err != nil || info.ID != c.ID || info.State != "Not started" || info.AppName != "Firecracker" {
		t.Errorf("instance %+v, %v", info, err)
	}
	got, err := m.api.VMConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkVMConfig(t, c, got)
	m.abandon()
	if got := names(t, c); got != before {
		t.Errorf("afterwards there are: %s", got)
	}
}

// checkVMConfig holds what Firecracker understood against what was meant.
func checkVMConfig(t *testing.T, c vmm.Config, got VMConfig) {
	t.Helper()
	if b := got.BootSource; b == nil || b.KernelImagePath != c.Kernel || b.InitrdPath != c.Initrd || b.BootArgs != ownArgs+" quiet a.b=c" {
		t.Errorf("boot source %+v", b)
	}
	if m := got.MachineConfig; m == nil || m.VCPUCount != c.CPUs || m.MemSizeMiB != c.MemoryMiB {
		t.Errorf("machine config %+v", m)
	}
	if v := got.Vsock; v == nil || v.GuestCID != guestCID || v.UDSPath != c.VsockPath {
		t.Errorf("vsock %+v", v)
	}
	if got.Entropy == nil {
		t.Error("no entropy device")
	}
	if len(got.Drives) != len(c.Disks) {
		t.Fatalf("%d drives", len(got.Drives))
	}
	for i, d := range got.Drives {
		if d.DriveID != diskName(i) || d.PathOnHost != c.Disks[i].Path || d.IsReadOnly != c.Disks[i].ReadOnly || d.IsRootDevice {
			t.Errorf("drive %d is %+v", i, d)
		}
	}
	if got.Drives[1].CacheType != "Writeback" {
		t.Errorf("writable drive has cache %s", got.Drives[1].CacheType)
	}
}

// realSamples are all requests for before the boot, with files that exist.
func realSamples(c vmm.Config, metrics string) []Request {
	dir := filepath.Dir(c.Dir)
	return []Request{
		PutBootSource(BootSource{c.Kernel, c.Initrd, "quiet"}),
		PutMachineConfig(MachineConfig{2, 256, true, true, "None", "None"}),
		PatchMachineConfig(MachineConfigPatch{ptr(1), ptr(128), ptr(false), ptr(false), ptr("None"), ptr("None")}),
		PutCPUConfig(CPUConfig{
			KVMCapabilities: []string{"121", "!56"},
			CPUIDModifiers:  []CPUIDLeafMod{{"0x1", "0x0", 0, []CPUIDRegisterMod{{"eax", "0bxxxx_0001"}}}},
			MSRModifiers:    []RegisterMod{{"0x10a", "0b1"}},
		}),
		PutDrive(Drive{DriveID: "vda", PathOnHost: c.Disks[0].Path, IsReadOnly: true, CacheType: "Unsafe", IOEngine: "Sync", RateLimiter: limiter()}),
		PutDrive(Drive{DriveID: "root_1", IsRootDevice: true, PathOnHost: c.Disks[1].Path, CacheType: "Writeback", PartUUID: "6a-01"}),
		PutPmem(Pmem{ID: "pmem0", PathOnHost: c.Disks[1].Path, ReadOnly: true}),
		PutPmem(Pmem{"pmem0", c.Disks[1].Path, false, true, limiter()}),
		PutVsock(Vsock{3, c.VsockPath}),
		PutEntropy(Entropy{limiter()}), PutEntropy(Entropy{}),
		PutSerial(Serial{SerialOutPath: filepath.Join(dir, "serial")}),
		PutSerial(Serial{filepath.Join(dir, "serial"), &TokenBucket{Size: 1000, RefillTime: 100}}),
		PutLogger(Logger{filepath.Join(c.Dir, "firecracker.log"), "Warn", true, true, "api_server"}),
		PutMetrics(Metrics{MetricsPath: metrics}),
		PutBalloon(Balloon{16, true, 1, false, false}), PutBalloon(Balloon{16, true, 1, true, true}),
		PutMMDS(json.RawMessage(`{"a":{"b":"c"}}`)), PatchMMDS(json.RawMessage(`{"a":null}`)),
		PutMemoryHotplug(MemoryHotplug{1024, 4, 256}),
	}
}

func TestRealAcceptsEveryRequest(t *testing.T) {
	c := setup(t)
	metrics := filepath.Join(filepath.Dir(c.Dir), "metrics")
	writeFile(t, metrics, "")
	m := realMachine(t, c, false)
	ctx := context.Background()
	sent := map[string]bool{}
	for _, r := range realSamples(c, metrics) {
		if r.check(m.api.version.Load()) != nil {
			continue // newer than this release
		}
		if err := m.api.Do(ctx, r); err != nil {
			t.Errorf("%v", err)
		}
		name, _, _ := route(r.Method, r.Path)
		sent[name] = true
	}
	for name, e := range facts() {
		method, path, _ := strings.Cut(name, " ")
		optional := e.since != "" || strings.HasPrefix(path, "/network-interfaces") || path == "/mmds/config"
		if hasBody(method) && !e.post && !optional && path != "/actions" && path != "/snapshot/load" && !sent[name] {
			t.Errorf("%s: not tried", name)
		}
	}
	if d, err := m.api.MMDS(ctx); err != nil || string(d) != "{}" {
		t.Errorf("mmds %s, %v", d, err)
	}
	if b, err := m.api.Balloon(ctx); err != nil || b.AmountMiB != 16 || !b.DeflateOnOOM || b.StatsPollingIntervalS != 1 {
		t.Errorf("balloon %+v, %v", b, err)
	}
	if cfg, err := m.api.MachineConfig(ctx); err != nil || cfg.MemSizeMiB != 128 || cfg.SMT {
		t.Errorf("machine config %+v, %v", cfg, err)
	}
}

// TestRealNetwork: a TAP needs rights that the test may lack, so a refusal
// counts as understood when it is about the TAP.
func TestRealNetwork(t *testing.T) {
	m := realMachine(t, setup(t), false)
	ctx := context.Background()
	nic := PutNetworkInterface(NetworkInterface{IfaceID: "eth0", HostDevName: "mpfctest0", GuestMAC: "06:00:ac:10:00:02", RxRateLimiter: limiter(), TxRateLimiter: limiter()})
	err := m.api.Do(ctx, nic)
	if err != nil {
		if !strings.Contains(err.Error(), "TAP") && !strings.Contains(err.Error(), "tap") {
			t.Error(err)
		}
		return
	}
	if err := m.api.Do(ctx, PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"eth0"}, Version: "V2", IPv4Address: "169.254.170.2"})); err != nil {
		t.Error(err)
	}
}

// TestRealRefusesWrongFields adds a key to each body: the program itself holds
// our field names against its own.
func TestRealRefusesWrongFields(t *testing.T) {
	c := setup(t)
	m := realMachine(t, c, false)
	tried := 0
	extra := []Request{
		PutNetworkInterface(NetworkInterface{IfaceID: "eth0", HostDevName: "t"}), PutMMDSConfig(MMDSConfig{NetworkInterfaces: []string{"a"}}),
		PutAction(InstanceStart), LoadSnapshot(SnapshotLoad{SnapshotPath: "/s", MemBackend: MemoryBackend{"File", "/m"}, ResumeVM: true}),
	}
	for _, r := range append(append(realSamples(c, "/m"), leanSamples()...), extra...) {
		data, _ := encode(t, r)
		object, ok := data.(map[string]any)
		// Metrics ignores what it does not know (seen in 1.12.1).
		if !ok || r.Path == "/mmds" || r.Path == "/metrics" || r.check(m.api.version.Load()) != nil {
			continue
		}
		bad := maps.Clone(object)
		bad["micropod"] = 1
		err := m.api.Do(context.Background(), Request{Method: r.Method, Path: r.Path, Body: bad})
		if err == nil || !strings.Contains(err.Error(), "unknown field `micropod`") {
			t.Errorf("%s: %v", r, err)
		}
		tried++
	}
	if tried < 25 {
		t.Errorf("only %d requests were tried", tried)
	}
}

func TestRealErrors(t *testing.T) {
	c := setup(t)
	m := realMachine(t, c, false)
	ctx := context.Background()
	for _, r := range append(fullSamples(), leanSamples()...) {
		_, e, _ := route(r.Method, r.Path)
		if !e.post || r.check(m.api.version.Load()) != nil {
			continue
		}
		if err := m.api.Do(ctx, r); err == nil || !strings.Contains(err.Error(), "not supported before starting the microVM") {
			t.Errorf("%s: %v", r, err)
		}
	}
	for _, tt := range []struct {
		r    Request
		want string
	}{
		{PutBootSource(BootSource{KernelImagePath: "/none"}), "No such file or directory"},
		{PutDrive(Drive{DriveID: "a", PathOnHost: "/none"}), "No such file or directory"},
		{PutVsock(Vsock{3, filepath.Join(c.Dir, "none", "x")}), "No such file or directory"},
		{PutAction(InstanceStart), "without kernel configuration"},
		{Request{Method: "PUT", Path: "/entropy"}, "Empty PUT request."},
		{Request{Method: "PUT", Path: "/nope", Body: 1}, "Invalid request method and/or path"},
		{Request{Method: "PUT", Path: "/machine-config", Body: map[string]int{"vcpu_count": 33, "mem_size_mib": 1}}, "number of vCPUs"},
		{Request{Method: "POST", Path: "/entropy", Body: 1}, "Unsupported HTTP method. All previous unanswered requests will be dropped."},
	} {
		err := m.api.Do(ctx, tt.r)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Message, tt.want) {
			t.Errorf("%s: %v, want %s", tt.r, err, tt.want)
		}
	}
	if _, err := m.api.BalloonStats(ctx); err == nil {
		t.Error("balloon statistics before the boot")
	}
}

// TestRealSecondServer: Firecracker does not take over a socket that exists.
func TestRealSecondServer(t *testing.T) {
	c := setup(t)
	m := realMachine(t, c, false)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := startProcess(command{path: m.binary, args: m.args(), stdout: null, stderr: null})
	if err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if status, ended := p.state(); !ended || status.ExitStatus() != 1 {
		t.Errorf("exit code %d", status.ExitStatus())
	}
	if _, err := m.api.Version(context.Background()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

// TestRealDies: how the end of the real program is told.
func TestRealDies(t *testing.T) {
	c := setup(t)
	m := realMachine(t, c, false)
	err := m.api.Do(context.Background(), LoadSnapshot(SnapshotLoad{SnapshotPath: "/none", MemBackend: MemoryBackend{"File", "/none"}}))
	if e := (*Error)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "No such file or directory") {
		t.Fatalf("load of nothing: %v", err)
	}
	<-m.proc.exited // a failed load ends the process
	m.release()
	if e := m.outcome(); e.Code != 1 || !strings.Contains(e.Reason, "firecracker stopped with an error: ") {
		t.Errorf("%+v", e)
	}
}

func TestRealProbe(t *testing.T) {
	d := New(Options{Binary: realBinary(t)})
	var err error
	if d.host, err = fakeHost(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	a := d.Probe(context.Background())
	if v, err := ParseVersion(a.Version); !a.OK || err != nil || v.Supported() != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestRealLimits: the real program takes the limits of a plan, the lowest and
// the highest, and says so.
func TestRealLimits(t *testing.T) {
	c := setup(t)
	c.Disks[0].Limits = vmm.DiskLimits{ReadBytes: 1, ReadOps: vmm.MaxDiskLimit}
	c.Disks[1].Limits = vmm.DiskLimits{WriteBytes: vmm.MaxDiskLimit, WriteOps: 1}
	m := realMachine(t, c, true)
	got, err := m.api.VMConfig(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range got.Drives {
		if want := drive(i, c.Disks[i]).RateLimiter; !reflect.DeepEqual(d.RateLimiter, want) {
			t.Errorf("disk %d: %+v, want %+v", i, d.RateLimiter, want)
		}
	}
	if len(got.Drives) != 2 {
		t.Errorf("drives: %+v", got.Drives)
	}
}
