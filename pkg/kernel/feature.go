package kernel

// Feature is something that a guest needs from its kernel.
type Feature string

// The features that MicroPod asks for. EROFS stands for what MicroPod's disks
// need: several devices and chunked files, Linux 5.16 and later.
const (
	ACPI          Feature = "acpi"
	VirtioMMIO    Feature = "virtio_mmio"
	VirtioBlk     Feature = "virtio_blk"
	VirtioNet     Feature = "virtio_net"
	VirtioConsole Feature = "virtio_console"
	VirtioVsock   Feature = "virtio_vsock"
	VirtioRNG     Feature = "virtio_rng"
	VirtioBalloon Feature = "virtio_balloon"
	VirtioMem     Feature = "virtio_mem"
	EROFS         Feature = "erofs"
	Ext4          Feature = "ext4"
	Overlay       Feature = "overlay"
	Squashfs      Feature = "squashfs"
	FUSE          Feature = "fuse"
	VirtioFS      Feature = "virtiofs"
	Tun           Feature = "tun"
	Veth          Feature = "veth"
	Bridge        Feature = "bridge"
	// NBD: disks that the host serves to a guest that runs.
	NBD Feature = "nbd"
	// VirtioMMIOCmdline: devices can be named on the kernel command line,
	// for a VMM that describes none in ACPI tables.
	VirtioMMIOCmdline Feature = "virtio_mmio_cmdline"
)

// Support says how a kernel offers a feature.
type Support int

// Missing is the zero value: a feature that nobody knows is not there.
const (
	Missing Support = iota
	Builtin
	ViaModule
)

func (s Support) String() string {
	switch s {
	case Builtin:
		return "built in"
	case ViaModule:
		return "module"
	default:
		return "missing"
	}
}

// featureSpec is where the traces of a feature are to be found.
type featureSpec struct {
	// module is the canonical name, with underscores; "" for what is never
	// a module.
	module string
	// option is the Kconfig symbol without CONFIG_.
	option string
	// marker is a string of the feature's code, found in the ELF when the
	// feature is built in. It may be the tail of a longer string: linkers
	// merge those.
	marker string
	// since is the first Linux version that has all that the feature means.
	since [2]int
}

// specs is a function and not a variable so that nothing can change it.
func specs() map[Feature]featureSpec {
	return map[Feature]featureSpec{
		ACPI:              {option: "ACPI", marker: "ACPI: Interpreter enabled"},
		VirtioMMIO:        {module: "virtio_mmio", option: "VIRTIO_MMIO", marker: "virtio-mmio\x00"},
		VirtioMMIOCmdline: {option: "VIRTIO_MMIO_CMDLINE_DEVICES", marker: "virtio-mmio-cmdline\x00"},
		VirtioBlk:         {module: "virtio_blk", option: "VIRTIO_BLK", marker: "virtio_blk\x00"},
		VirtioNet:         {module: "virtio_net", option: "VIRTIO_NET", marker: "virtio_net\x00"},
		VirtioConsole:     {module: "virtio_console", option: "VIRTIO_CONSOLE", marker: "virtio-ports\x00"},
		VirtioVsock:       {module: "vmw_vsock_virtio_transport", option: "VIRTIO_VSOCKETS", marker: "vmw_vsock_virtio_transport\x00"},
		VirtioRNG:         {module: "virtio_rng", option: "HW_RANDOM_VIRTIO", marker: "virtio_rng.%d\x00"},
		VirtioBalloon:     {module: "virtio_balloon", option: "VIRTIO_BALLOON", marker: "virtio_balloon\x00"},
		VirtioMem:         {module: "virtio_mem", option: "VIRTIO_MEM", marker: "virtio_mem\x00"},
		NBD:               {module: "nbd", option: "BLK_DEV_NBD", marker: "nbd_mc_group\x00"},
		EROFS:             {module: "erofs", option: "EROFS_FS", marker: "erofs\x00", since: [2]int{5, 16}},
		Ext4:              {module: "ext4", option: "EXT4_FS", marker: "EXT4-fs (%s): "},
		Overlay:           {module: "overlay", option: "OVERLAY_FS", marker: "overlayfs: "},
		Squashfs:          {module: "squashfs", option: "SQUASHFS", marker: "SQUASHFS error: "},
		FUSE:              {module: "fuse", option: "FUSE_FS", marker: "fuseblk\x00"},
		VirtioFS:          {module: "virtiofs", option: "VIRTIO_FS", marker: "virtiofs\x00"},
		Tun:               {module: "tun", option: "TUN", marker: "Universal TUN/TAP device driver"},
		Veth:              {module: "veth", option: "VETH", marker: "veth\x00"},
		Bridge:            {module: "bridge", option: "BRIDGE", marker: "filtering via arp/ip/ip6tables is no longer available"},
	}
}

// featureFacts is what examine found out about one feature.
type featureFacts struct {
	Support Support      `json:"support"`
	Modules []moduleFact `json:"modules,omitempty"`
	// Reason says why a feature is missing when that is no matter of course.
	Reason string `json:"reason,omitempty"`
}

// evidence is everything that is known about a kernel's abilities.
type evidence struct {
	version [2]int
	tree    *moduleTree       // nil: no modules directory
	config  map[string]string // nil: no configuration found
	markers map[string]bool   // strings of the ELF; nil: not looked for
}

// judge weighs the evidence for one feature, the most reliable kind first.
func (e evidence) judge(s featureSpec) featureFacts {
	if e.version[0] < s.since[0] || e.version[0] == s.since[0] && e.version[1] < s.since[1] {
		return featureFacts{Reason: "the kernel is too old"}
	}
	if e.tree != nil && s.module != "" {
		if e.tree.builtin[s.module] {
			return featureFacts{Support: Builtin}
		}
		if _, ok := e.tree.files[s.module]; ok {
			mods, err := e.tree.closure(s.module)
			if err != nil {
				return featureFacts{Reason: err.Error()}
			}
			return featureFacts{Support: ViaModule, Modules: mods}
		}
	}
	switch {
	case e.config != nil:
		return e.judgeConfig(s)
	case e.tree != nil && len(e.tree.builtin) > 0 && s.module != "":
		return featureFacts{}
	case e.markers[s.marker]:
		return featureFacts{Support: Builtin}
	}
	return featureFacts{}
}

func (e evidence) judgeConfig(s featureSpec) featureFacts {
	switch e.config[s.option] {
	case "y":
		return featureFacts{Support: Builtin}
	case "m":
		return featureFacts{Reason: "it is a module, and its file is not there"}
	}
	return featureFacts{}
}
