// Package failpoint marks the places at which the program can be made to die, so
// that a test shows what is left then.
//
// In an ordinary build it is nothing: Here is an empty function. With the build
// tag failpoint, a process that comes to the point that MICROPOD_FAILPOINT names
// kills itself with SIGKILL:
//
//	MICROPOD_FAILPOINT=create.disk        at the first time
//	MICROPOD_FAILPOINT=state.write:3      at the third
//	MICROPOD_FAILPOINT=supervisor.up=vmm  the VMM dies in its place
//
// The environment goes from the command to the supervisor, so that the point's
// name decides which of them dies. Each point is a constant here, is in the list
// of All, and stands at one place of the program: a test holds all three
// together. Points stand behind each step that acquires, gives up or records
// something.
package failpoint

// Point is a place in the program.
type Point string

// Points of pull and rmi.
const (
	PullLeased     Point = "pull.leased"     // the lease on the layers is taken
	RootfsWritten  Point = "rootfs.written"  // a layer or a disk is whole, under a temporary name
	RootfsNamed    Point = "rootfs.named"    // it has its name
	PullLayers     Point = "pull.layers"     // all layers are there
	PullDocuments  Point = "pull.documents"  // manifest and config are there
	PullRecorded   Point = "pull.recorded"   // the image is in the index
	RemoveImage    Point = "rmi.recorded"    // the image is out of the index
	RootfsMoved    Point = "rootfs.moved"    // a layer or a disk is out of its place
	RootfsUnlocked Point = "rootfs.unlocked" // its files are gone, its lock is not
)

// Points of create.
const (
	CreateHeld      Point = "create.held"      // the image is held
	CreateMade      Point = "create.made"      // the directory is there
	CreateLocked    Point = "create.locked"    // its lock is taken
	CreateDescribed Point = "create.described" // the config is written
	CreateDisk      Point = "create.disk"      // the writable disk is there
	CreateNamed     Point = "create.named"     // the directory has its name
	CreateRecorded  Point = "create.recorded"  // the container is in the database
	StateWritten    Point = "state.written"    // a record is whole, under a temporary name
)

// Points of start, in the command.
const (
	StartLocked      Point = "start.locked"      // the container's lock is taken
	InitramfsWritten Point = "initramfs.written" // it is whole, under a temporary name
	StartPlanned     Point = "start.planned"     // kernel and disks are there
	SpawnStarted     Point = "spawn.started"     // the supervisor runs, without its plan
	SpawnPlanned     Point = "spawn.planned"     // it has its plan
	StartReported    Point = "start.reported"    // the container's process runs
)

// Points of the supervisor.
const (
	SupervisorBorn      Point = "supervisor.born"      // it has inherited the lock
	SupervisorListening Point = "supervisor.listening" // the control socket is there
	SupervisorRecorded  Point = "supervisor.recorded"  // the status says starting
	SupervisorAwaiting  Point = "supervisor.awaiting"  // the socket for the agent is there
	QEMUListening       Point = "qemu.listening"       // the vsock socket is there
	QEMUSpawned         Point = "qemu.spawned"         // the VMM runs, its guest perhaps not yet
	TemplateMade        Point = "template.made"        // a template is whole, under a temporary name
	TemplateNamed       Point = "template.named"       // it has its name, its VM does not run
	SupervisorVMM       Point = "supervisor.vmm"       // the guest boots, nothing says so
	SupervisorKnown     Point = "supervisor.known"     // the status names the VMM
	SupervisorBooted    Point = "supervisor.booted"    // the agent has called
	SupervisorSetUp     Point = "supervisor.setup"     // the guest is set up, the token is there
	SupervisorStarted   Point = "supervisor.started"   // the container's process runs
	SupervisorRunning   Point = "supervisor.running"   // the status says so
	SupervisorUp        Point = "supervisor.up"        // the command knows
	SupervisorExited    Point = "supervisor.exited"    // the container's process has ended
	SupervisorFlushed   Point = "supervisor.flushed"   // the guest has written its disk back
	SupervisorKilled    Point = "supervisor.killed"    // the VMM has ended
	SupervisorFreed     Point = "supervisor.freed"     // sockets and files of the VM are gone
	SupervisorSettled   Point = "supervisor.settled"   // the status says exited
)

// Points of what works on containers that run, and of rm.
const (
	ExecDialled    Point = "exec.dialled" // connected to the guest
	ExecStreams    Point = "exec.streams" // the streams too
	ExecStarted    Point = "exec.started" // the process runs
	StopSent       Point = "stop.sent"    // the supervisor knows
	StopEnded      Point = "stop.ended"   // the container has ended
	RemoveKilled   Point = "rm.killed"    // of -f
	RemoveLocked   Point = "rm.locked"    // the container's lock is taken
	RemoveHidden   Point = "rm.hidden"    // the directory has another name
	RemoveRecorded Point = "rm.recorded"  // the container is out of the database
	ReapFreed      Point = "reap.freed"   // what a lost supervisor left is gone
)

// Points of networks.
const (
	NetworksWritten Point = "networks.written" // the networks and addresses are recorded
)

// Points of the networks of a container that runs, in its supervisor.
const (
	ConnectRecorded    Point = "connect.recorded"    // the status names the network
	ConnectLinked      Point = "connect.linked"      // the host's end is in it
	ConnectWired       Point = "connect.wired"       // the guest has its device
	ConnectTold        Point = "connect.told"        // it has its routes and names
	DisconnectRecorded Point = "disconnect.recorded" // the status says that it leaves
	DisconnectLeft     Point = "disconnect.left"     // the host's end is out of it
)

// Points of the files of a container, of which those called service are in the
// supervisor of a VM that only serves them.
const (
	FilesLocked     Point = "files.locked"     // the container's lock is taken
	FilesServed     Point = "files.served"     // a VM serves them
	FilesSent       Point = "files.sent"       // what is copied is there, perhaps not on the disk
	ServiceRecorded Point = "service.recorded" // the record of the service is written
	ServiceUp       Point = "service.up"       // the command knows
	ServiceFlushed  Point = "service.flushed"  // the guest has written its disk back
	ServiceFreed    Point = "service.freed"    // the VM is gone
)

// Points of Firecracker's templates, which take a KVM: package test/firecracker
// runs their sweep.
const (
	FirecrackerPattern Point = "firecracker.pattern" // the guest that becomes a template boots
	FirecrackerSaved   Point = "firecracker.saved"   // its snapshot is written, where its VMM can
	FirecrackerTaken   Point = "firecracker.taken"   // a half of that is the template's
)

// Points of bridge networks. They are not swept with the others but by the tests
// of pkg/network/bridge, which need root and no VM.
const (
	BridgeTables   Point = "bridge.tables"   // the rules are changed
	BridgeLinked   Point = "bridge.linked"   // the bridge is there, down
	BridgeRouted   Point = "bridge.routed"   // it has its gate and its routing rules
	BridgeUp       Point = "bridge.up"       // it has its addresses, and is up
	BridgePlugged  Point = "bridge.plugged"  // the VM's device is its port
	BridgeUnrouted Point = "bridge.unrouted" // the bridge is down, its routing rules are gone
	BridgeRemoved  Point = "bridge.removed"  // it is gone, its rules are not
)

// All lists the points in about the order in which a container comes to them.
func All() []Point {
	return []Point{
		PullLeased, RootfsWritten, RootfsNamed, PullLayers, PullDocuments, PullRecorded,
		RemoveImage, RootfsMoved, RootfsUnlocked,
		CreateHeld, CreateMade, CreateLocked, CreateDescribed, CreateDisk, CreateNamed, CreateRecorded, StateWritten,
		StartLocked, InitramfsWritten, StartPlanned, SpawnStarted, SpawnPlanned, StartReported,
		SupervisorBorn, SupervisorListening, SupervisorRecorded, SupervisorAwaiting, TemplateMade, TemplateNamed, QEMUListening, QEMUSpawned,
		SupervisorVMM, SupervisorKnown, SupervisorBooted, SupervisorSetUp, SupervisorStarted, SupervisorRunning,
		SupervisorUp, SupervisorExited, SupervisorFlushed, SupervisorKilled, SupervisorFreed, SupervisorSettled,
		ExecDialled, ExecStreams, ExecStarted, StopSent, StopEnded,
		RemoveKilled, RemoveLocked, RemoveHidden, RemoveRecorded, ReapFreed,
		NetworksWritten,
		ConnectRecorded, ConnectLinked, ConnectWired, ConnectTold, DisconnectRecorded, DisconnectLeft,
		FilesLocked, FilesServed, FilesSent, ServiceRecorded, ServiceUp, ServiceFlushed, ServiceFreed,
		FirecrackerPattern, FirecrackerSaved, FirecrackerTaken,
		BridgeTables, BridgeLinked, BridgeRouted, BridgeUp, BridgePlugged, BridgeUnrouted, BridgeRemoved,
	}
}

// VMM lists those at which the VMM can die in our place.
func VMM() []Point {
	return []Point{
		SupervisorVMM, SupervisorKnown, SupervisorBooted, SupervisorSetUp, SupervisorStarted,
		SupervisorRunning, SupervisorUp, SupervisorExited,
	}
}
