package manager

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/micropod/micropod/pkg/state"
)

func TestCheckShare(t *testing.T) {
	shared := func(change func(*CreateOptions)) CreateOptions {
		o := CreateOptions{Networks: []NetworkAttachment{{Network: "container:web"}}}
		change(&o)
		return o
	}
	if err := checkShare(shared(func(o *CreateOptions) {
		o.HostConfig.Sysctls = map[string]string{"net.core.somaxconn": "9", "kernel.sem": "1", "net/ipv4/conf/eth0.1/forwarding": "1"}
	})); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*CreateOptions){
		"invalid network mode: invalid container format container:<name|id>": func(o *CreateOptions) { o.Networks[0].Network = "container:" },
		"conflicting options: hostname and the network mode":                 func(o *CreateOptions) { o.Hostname = "x"; o.HostConfig.DNS = []string{"192.0.2.1"} },
		"conflicting options: dns and the network mode":                      func(o *CreateOptions) { o.HostConfig.DNS = []string{"192.0.2.1"} },
		"conflicting options: custom host-to-IP mapping and the network mode": func(o *CreateOptions) {
			o.HostConfig.ExtraHosts = []string{"a:192.0.2.1"}
		},
		"conflicting options: mac-address and the network mode": func(o *CreateOptions) { o.Networks[0].MAC = "02:00:00:00:00:01" },
		"conflicting options: port publishing and the container type network mode": func(o *CreateOptions) {
			o.HostConfig.PublishAll = true
		},
		"conflicting options: port exposing and the container type network mode": func(o *CreateOptions) { o.ExposedPorts = []string{"80/tcp"} },
		"conflicting options: limits of devices": func(o *CreateOptions) {
			o.HostConfig.DeviceReadIOps = []ThrottleDevice{{Path: "/dev/vda", Rate: 1}}
		},
		"user specified IP address is supported on user defined networks only": func(o *CreateOptions) {
			o.Networks[0].Address = netip.MustParseAddr("192.0.2.1")
		},
		"cannot attach both": func(o *CreateOptions) { o.Networks = append(o.Networks, NetworkAttachment{Network: "none"}) },
		"sysctl 'kernel.panic' is not allowed": func(o *CreateOptions) {
			o.HostConfig.Sysctls = map[string]string{"kernel.panic": "1"}
		},
		"sysctl 'net./../kernel/panic' is not allowed": func(o *CreateOptions) {
			o.HostConfig.Sysctls = map[string]string{"net./../kernel/panic": "1"}
		},
		"sysctl 'fs/mqueue/../../net' is not allowed": func(o *CreateOptions) {
			o.HostConfig.Sysctls = map[string]string{"fs/mqueue/../../net": "1"}
		},
	} {
		if err := checkShare(shared(change)); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), want) && !strings.Contains(err.Error(), "options: "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestShare makes containers that share a network, without starting any.
func TestShare(t *testing.T) {
	m, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	create := func(o CreateOptions) *state.Config {
		t.Helper()
		c, err := newConfig(o, testImage())
		if err == nil {
			err = m.resolveNetworks(&c, o.Networks)
		}
		if err == nil {
			err = m.state.Create(c, func(state.Paths) error { return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	web := create(CreateOptions{Name: "web", Hostname: "site", Domainname: "example", VMM: "qemu", Kernel: "/k", CPUs: 2, Networks: []NetworkAttachment{{Network: NetworkNone}}})
	share := func(of string, o CreateOptions) (CreateOptions, error) {
		o.Networks = []NetworkAttachment{{Network: "container:" + of}}
		return m.share(o)
	}
	o, err := share("web", CreateOptions{Name: "side", CPUs: 0.5})
	if err != nil || o.HostConfig.NetworkMode != "container:"+web.ID || o.Hostname != "site" || o.Domainname != "example" || o.VMM != "qemu" || o.Kernel != "/k" {
		t.Fatalf("%+v, %v", o, err)
	}
	side := create(o)
	if side.CPUs != 1 || side.MemoryMiB != 0 || len(attachments(side)) != 0 || *containerLimits(side).CPU.Quota != 50000 || containerLimits(side).Memory != nil {
		t.Errorf("%+v", side)
	}
	if o, err = share(side.ID[:12], CreateOptions{Name: "third", MemoryBytes: 100 << 20}); err != nil || o.HostConfig.NetworkMode != "container:"+side.ID {
		t.Fatalf("%+v, %v", o, err)
	}
	third := create(o)
	if m.vmOf(third) != web.ID || m.vmOf(web) != "" || *containerLimits(third).Memory.Limit != 100<<20 || containerLimits(web).Memory != nil {
		t.Errorf("%+v, in the VM of %s", third, m.vmOf(third))
	}
	if m.memoryOf(side) != defaultMemoryMiB || m.memoryOf(third) != 100 {
		t.Errorf("%d and %d MiB", m.memoryOf(side), m.memoryOf(third))
	}
	if _, _, err := m.runningOwner(third); !errors.Is(err, ErrConflict) || err.Error() != "cannot join network of a non running container: "+side.ID {
		t.Errorf("start: %v", err)
	}
	// One on its way up does not run yet: what its VM is is not known.
	lock, err := m.state.Lock(web.ID)
	if err == nil {
		err = state.WriteStatus(m.state.Paths(web.ID), state.Status{Phase: state.PhaseStarting})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.runningOwner(side); !errors.Is(err, ErrConflict) || err.Error() != "cannot join network of a non running container: "+web.ID {
		t.Errorf("start beside one that starts: %v", err)
	}
	for want, o := range map[string]CreateOptions{"--vmm firecracker": {VMM: "firecracker"}, "--kernel": {Kernel: "/other"}} {
		if _, err := share("web", o); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := share("nobody", CreateOptions{}); !errors.Is(err, ErrNotFound) || err.Error() != "No such container: nobody" {
		t.Error(err)
	}
	lock.Unlock()
	if err := m.state.Remove(web.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := share("side", CreateOptions{}); !errors.Is(err, ErrNotFound) || err.Error() != "No such container: "+web.ID {
		t.Errorf("beside one whose VM's container is no more: %v", err)
	}
	err = m.ConnectNetwork(t.Context(), "side", NetworkAttachment{Network: NetworkUser})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "cannot be connected to any other network") {
		t.Errorf("connect: %v", err)
	}
}

func TestCheckFits(t *testing.T) {
	owner := &state.Config{Name: "web", CPUs: 2, Kernel: "/k"}
	st := &state.Status{Driver: state.Driver{Name: "qemu"}}
	for want, c := range map[string]state.Config{
		"":                                   {CPUs: 2, VMM: vmmAuto, Kernel: "/k", HostConfig: HostConfig{CPUSetCPUs: "0-1"}},
		"as there are only 2 CPUs available": {CPUs: 3, Kernel: "/k"},
		"requested 1-2, available: 0-1":      {CPUs: 1, Kernel: "/k", HostConfig: HostConfig{CPUSetCPUs: "1-2"}},
		"--vmm firecracker":                  {VMM: "firecracker", Kernel: "/k"},
	} {
		err := checkFits(&c, owner, st)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
