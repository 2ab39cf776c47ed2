package firecracker

import (
	"encoding/json"
	"net/http"
)

// Request is one call of the API, made by the functions below and sent by
// Client.Do. Before and after mean InstanceStart or a snapshot load.
type Request struct {
	Method string
	Path   string
	// Body is what the JSON is made of, nil for none.
	Body any
	// needs are features beyond those that the body's fields ask for.
	needs []Feature
}

// String names the request in errors: "PUT /drives/vda".
func (r Request) String() string { return r.Method + " " + r.Path }

// limited is a body whose values have bounds that are known beforehand.
type limited interface{ check() error }

// gated is a body with fields that not every release knows.
type gated interface{ needs() []Feature }

// PutAction starts the VM (before) or asks something of it (after).
func PutAction(t ActionType) Request {
	return Request{Method: http.MethodPut, Path: "/actions", Body: Action{Type: t}}
}

// PutBootSource sets kernel, initramfs and command line. Before.
func PutBootSource(b BootSource) Request {
	return Request{Method: http.MethodPut, Path: "/boot-source", Body: b}
}

// PutMachineConfig sets vCPUs and memory. Before.
func PutMachineConfig(m MachineConfig) Request {
	return Request{Method: http.MethodPut, Path: "/machine-config", Body: m}
}

// PatchMachineConfig changes vCPUs and memory. Before.
func PatchMachineConfig(m MachineConfigPatch) Request {
	return Request{Method: http.MethodPatch, Path: "/machine-config", Body: m}
}

// PutCPUConfig sets a custom CPU template. Before.
func PutCPUConfig(c CPUConfig) Request {
	return Request{Method: http.MethodPut, Path: "/cpu-config", Body: c}
}

// PutDrive adds or replaces a drive. Before; after with PCI.
func PutDrive(d Drive) Request {
	return Request{Method: http.MethodPut, Path: "/drives/" + d.DriveID, Body: d}
}

// PatchDrive reopens a drive's file or changes its limits. After.
func PatchDrive(d DrivePatch) Request {
	return Request{Method: http.MethodPatch, Path: "/drives/" + d.DriveID, Body: d}
}

// DeleteDrive unplugs a drive. After, with PCI.
func DeleteDrive(id string) Request {
	return Request{Method: http.MethodDelete, Path: "/drives/" + id, needs: []Feature{DeviceHotplug}}
}

// PutPmem adds or replaces a pmem device. Before; after with PCI.
func PutPmem(p Pmem) Request {
	return Request{Method: http.MethodPut, Path: "/pmem/" + p.ID, Body: p}
}

// PatchPmem changes the limits of a pmem device. After.
func PatchPmem(p PmemPatch) Request {
	return Request{Method: http.MethodPatch, Path: "/pmem/" + p.ID, Body: p}
}

// DeletePmem unplugs a pmem device. After, with PCI.
func DeletePmem(id string) Request {
	return Request{Method: http.MethodDelete, Path: "/pmem/" + id, needs: []Feature{DeviceHotplug}}
}

// PutNetworkInterface adds or replaces an interface. Before; after with PCI.
func PutNetworkInterface(n NetworkInterface) Request {
	return Request{Method: http.MethodPut, Path: "/network-interfaces/" + n.IfaceID, Body: n}
}

// PatchNetworkInterface changes the limits of an interface. After.
func PatchNetworkInterface(n NetworkInterfacePatch) Request {
	return Request{Method: http.MethodPatch, Path: "/network-interfaces/" + n.IfaceID, Body: n}
}

// DeleteNetworkInterface unplugs an interface. After, with PCI.
func DeleteNetworkInterface(id string) Request {
	return Request{Method: http.MethodDelete, Path: "/network-interfaces/" + id, needs: []Feature{DeviceHotplug}}
}

// PutVsock sets the vsock device and binds its socket. Before.
func PutVsock(v Vsock) Request {
	return Request{Method: http.MethodPut, Path: "/vsock", Body: v}
}

// PutEntropy adds the entropy device. Before.
func PutEntropy(e Entropy) Request {
	return Request{Method: http.MethodPut, Path: "/entropy", Body: e}
}

// PutSerial sets where the serial console goes. Before, also before a load.
func PutSerial(s Serial) Request {
	return Request{Method: http.MethodPut, Path: "/serial", Body: s}
}

// PutLogger sets where the log goes. Before, also before a load.
func PutLogger(l Logger) Request {
	return Request{Method: http.MethodPut, Path: "/logger", Body: l}
}

// PutMetrics sets where the metrics go. Before, also before a load; once.
func PutMetrics(m Metrics) Request {
	return Request{Method: http.MethodPut, Path: "/metrics", Body: m}
}

// PutMMDSConfig switches the metadata service on. Before.
func PutMMDSConfig(m MMDSConfig) Request {
	return Request{Method: http.MethodPut, Path: "/mmds/config", Body: m}
}

// PutMMDS replaces the metadata. Any time.
func PutMMDS(data json.RawMessage) Request {
	return Request{Method: http.MethodPut, Path: "/mmds", Body: data}
}

// PatchMMDS merges into the metadata (RFC 7396). Any time after a PutMMDS.
func PatchMMDS(data json.RawMessage) Request {
	return Request{Method: http.MethodPatch, Path: "/mmds", Body: data}
}

// PutBalloon adds or replaces the balloon. Before.
func PutBalloon(b Balloon) Request {
	return Request{Method: http.MethodPut, Path: "/balloon", Body: b}
}

// PatchBalloon changes the balloon's target. After.
func PatchBalloon(b BalloonPatch) Request {
	return Request{Method: http.MethodPatch, Path: "/balloon", Body: b}
}

// PatchBalloonStats changes how often the guest is asked. After.
func PatchBalloonStats(b BalloonStatsPatch) Request {
	return Request{Method: http.MethodPatch, Path: "/balloon/statistics", Body: b}
}

// StartBalloonHinting begins a run of free page hinting. After.
func StartBalloonHinting(b BalloonHintingStart) Request {
	return Request{Method: http.MethodPatch, Path: "/balloon/hinting/start", Body: b, needs: []Feature{FreePageHandling}}
}

// StopBalloonHinting ends it. After.
func StopBalloonHinting() Request {
	return Request{Method: http.MethodPatch, Path: "/balloon/hinting/stop", needs: []Feature{FreePageHandling}}
}

// PutMemoryHotplug adds the virtio-mem device. Before.
func PutMemoryHotplug(m MemoryHotplug) Request {
	return Request{Method: http.MethodPut, Path: "/hotplug/memory", Body: m}
}

// PatchMemoryHotplug asks for another size. After.
func PatchMemoryHotplug(m MemoryHotplugPatch) Request {
	return Request{Method: http.MethodPatch, Path: "/hotplug/memory", Body: m}
}

// PatchVM pauses or resumes. After.
func PatchVM(s VMState) Request {
	return Request{Method: http.MethodPatch, Path: "/vm", Body: VMPatch{State: s}}
}

// CreateSnapshot writes a paused VM to files. After.
func CreateSnapshot(s SnapshotCreate) Request {
	return Request{Method: http.MethodPut, Path: "/snapshot/create", Body: s}
}

// LoadSnapshot restores a VM in a fresh process. Before.
func LoadSnapshot(s SnapshotLoad) Request {
	return Request{Method: http.MethodPut, Path: "/snapshot/load", Body: s}
}
