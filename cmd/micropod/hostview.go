package main

import (
	"cmp"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
)

type hostConfigView struct {
	RestartPolicy  restartPolicyView
	AutoRemove     bool
	Privileged     bool
	ReadonlyRootfs bool
	Init           bool
	StorageOpt     map[string]int64
	Annotations    map[string]string

	CapAdd, CapDrop, SecurityOpt, GroupAdd []string
	Ulimits                                []ulimitView
	PidsLimit                              *int64
	OomScoreAdj                            int
	MaskedPaths, ReadonlyPaths             []string

	NanoCpus, CpuShares, CpuPeriod, CpuQuota int64
	CpusetCpus                               string
	Memory, MemoryReservation, ShmSize       int64

	BlkioWeight                               uint16
	BlkioWeightDevice                         []struct{}
	BlkioDeviceReadBps, BlkioDeviceWriteBps   []throttleView
	BlkioDeviceReadIOps, BlkioDeviceWriteIOps []throttleView

	Sysctls                                             map[string]string `json:",omitempty"`
	Dns, DnsOptions, DnsSearch                          []string
	ExtraHosts                                          []string
	Tmpfs                                               map[string]string `json:",omitempty"`
	Mounts                                              []mountView       `json:",omitempty"`
	LogConfig                                           logConfigView
	CgroupnsMode, IpcMode, PidMode, UTSMode, UsernsMode string

	NetworkMode     string
	PortBindings    map[string][]portView
	PublishAllPorts bool
}

type restartPolicyView struct {
	Name              string
	MaximumRetryCount int
}

type logConfigView struct {
	Type   string
	Config map[string]string
}

type ulimitView struct {
	Name       string
	Hard, Soft int64
}

type mountView struct {
	Type, Target string
	ReadOnly     bool              `json:",omitempty"`
	TmpfsOptions *tmpfsOptionsView `json:",omitempty"`
}

type tmpfsOptionsView struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

func inspectHostConfig(c *manager.Container) hostConfigView {
	h := c.HostConfig
	v := hostConfigView{
		RestartPolicy: restartPolicyView{cmp.Or(h.RestartPolicy.Name, "no"), h.RestartPolicy.MaximumRetryCount},
		AutoRemove:    c.AutoRemove, Privileged: h.Privileged, ReadonlyRootfs: c.ReadOnly, Init: c.Init,
		StorageOpt: map[string]int64{"size": c.StorageBytes}, Annotations: notNil(c.Annotations),
		CapAdd: h.CapAdd, CapDrop: h.CapDrop, SecurityOpt: h.SecurityOpt, GroupAdd: c.GroupAdd, OomScoreAdj: h.OOMScoreAdj,
		MaskedPaths: []string{}, ReadonlyPaths: []string{},
		NanoCpus: h.NanoCPUs, CpuShares: h.CPUShares, CpuPeriod: h.CPUPeriod, CpuQuota: h.CPUQuota,
		CpusetCpus: h.CPUSetCPUs, Memory: int64(c.MemoryMiB) << 20, MemoryReservation: h.MemoryReservation,
		ShmSize: cmp.Or(h.ShmSize, manager.DefaultShmSize), Sysctls: h.Sysctls,
		Dns: listed(h.DNS), DnsOptions: listed(h.DNSOptions), DnsSearch: listed(h.DNSSearch), ExtraHosts: h.ExtraHosts,
		BlkioWeightDevice:  []struct{}{},
		BlkioDeviceReadBps: inspectThrottle(h.DeviceReadBps), BlkioDeviceWriteBps: inspectThrottle(h.DeviceWriteBps),
		BlkioDeviceReadIOps: inspectThrottle(h.DeviceReadIOps), BlkioDeviceWriteIOps: inspectThrottle(h.DeviceWriteIOps),
		LogConfig: logConfigView{Type: cmp.Or(h.LogConfig.Type, "local"), Config: notNil(h.LogConfig.Config)},
		Tmpfs:     tmpfsView(c.Tmpfs), CgroupnsMode: "private", IpcMode: "private",
		NetworkMode: manager.NetworkMode(h), PortBindings: portMap(h.PortBindings, true), PublishAllPorts: h.PublishAll,
	}
	if h.PidsLimit != 0 {
		v.PidsLimit = &h.PidsLimit
	}
	if !h.Privileged && !h.UnmaskPaths {
		v.MaskedPaths, v.ReadonlyPaths = manager.MaskedPaths(), manager.ReadonlyPaths()
	}
	v.Ulimits = []ulimitView{}
	for _, u := range h.Ulimits {
		v.Ulimits = append(v.Ulimits, ulimitView{Name: u.Name, Hard: u.Hard, Soft: u.Soft})
	}
	for _, m := range h.Mounts {
		v.Mounts = append(v.Mounts, inspectMount(m))
	}
	return v
}

type throttleView struct {
	Path string
	Rate uint64
}

func inspectThrottle(devices []manager.ThrottleDevice) []throttleView {
	out := []throttleView{}
	for _, d := range devices {
		out = append(out, throttleView(d))
	}
	return out
}

func inspectMount(m manager.Mount) mountView {
	v := mountView{Type: "tmpfs", Target: m.Target, ReadOnly: m.ReadOnly}
	if m.SizeBytes != 0 || m.Mode != 0 {
		v.TmpfsOptions = &tmpfsOptionsView{SizeBytes: m.SizeBytes, Mode: m.Mode}
	}
	return v
}

func tmpfsView(args []string) map[string]string {
	out := map[string]string{}
	for _, a := range args {
		dir, opts, _ := strings.Cut(a, ":")
		out[dir] = opts
	}
	return out
}

// listed is an empty array in JSON, not null, where docker has one.
func listed(words []string) []string {
	if words == nil {
		return []string{}
	}
	return words
}

// set is docker's form of a set.
func set(words []string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, w := range words {
		out[w] = struct{}{}
	}
	return out
}
