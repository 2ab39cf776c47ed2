package supervisor

import (
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/vmm"
)

// networks are what a VM is to be in.
func networks(nics ...network.NIC) *Networks {
	w := &Networks{NICs: nics, DNS: api.DNS{Servers: []string{"192.0.2.1"}}}
	for _, n := range nics {
		w.VM = append(w.VM, vmm.NIC{MAC: n.MAC(), MTU: n.MTU(), Device: n.Device()})
		w.Guest = append(w.Guest, api.NIC{MAC: n.MAC(), MTU: n.MTU(), Address: n.Guest().String()})
	}
	return w
}

// become asks for a change, and returns what is wrong with it.
func (l *life) become(w *Networks) string {
	l.t.Helper()
	r, err := l.command(Command{Op: OpNetworks, Networks: w}).Reply()
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Error
}

// recorded are the names of the networks in the status.
func (l *life) recorded() string {
	l.t.Helper()
	var names []string
	for _, n := range l.status().Networks {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

// plugged reports whether a device is there, and in a bridge.
func plugged(name string) (there, in bool) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return false, false
	}
	return true, link.Attrs().MasterIndex != 0 && link.Attrs().Flags&net.FlagUp != 0
}

// TestBecome connects a VM that runs to a second bridge network, and takes it out of
// the first, which it was booted in.
func TestBecome(t *testing.T) {
	vm := &fakeVM{runs: true}
	b := beginBridged(t, vm)
	b.unlock()
	b.awaitVM()
	if o := <-b.outcome; !o.OK {
		t.Fatalf("%+v", o)
	}
	b.outcome <- Outcome{OK: true} // for end
	// The next VM's devices have other names than this one's.
	first, second := b.nic(b.id, "net", 5, b.device), b.nic(b.id, "two", 6, network.DeviceName(b.id, 0))
	both := networks(first, second)
	if got := b.become(both); got != "" {
		t.Fatal(got)
	}
	device := network.DeviceName(b.id, 1)
	if there, in := plugged(device); !there || !in {
		t.Errorf("device %s: there %v, in a bridge %v", device, there, in)
	}
	want := api.NICRequest{NIC: both.Guest[1], Segments: true}
	if len(vm.plugged) != 1 || vm.plugged[0] != want || len(vm.told) != 1 || !reflect.DeepEqual(vm.told[0].NICs, both.Guest) || vm.told[0].ID != "c1" {
		t.Errorf("the guest got %+v, and was told %+v", vm.plugged, vm.told)
	}
	if got := b.recorded(); got != "net two" {
		t.Errorf("recorded: %s", got)
	}
	if got := b.become(both); got != "" || len(vm.plugged) != 1 {
		t.Errorf("a second time: %s, %d devices", got, len(vm.plugged))
	}
	if got := b.become(networks(second)); got != "" {
		t.Fatal(got)
	}
	// It is the VMM's.
	if there, in := plugged(b.device); !there || in {
		t.Errorf("the device of the boot: there %v, in a bridge %v", there, in)
	}
	if _, err := net.InterfaceByName("mp-" + strings.Repeat("5", 12)); err == nil {
		t.Error("the bridge of a network that nobody is in is there")
	}
	if got := b.recorded(); got != "two" {
		t.Errorf("recorded: %s", got)
	}
	if p := b.s.plan; len(p.NICs) != 1 || len(p.VM.NICs) != 1 || len(p.Setup.NICs) != 1 || p.Start.DNS.Servers[0] != "192.0.2.1" {
		t.Errorf("the next VM: %+v", p)
	}
	b.stopNow()
	b.end()
	for _, name := range []string{device, "mp-" + strings.Repeat("6", 12)} {
		if there, _ := plugged(name); there {
			t.Errorf("left on the host: %s", name)
		}
	}
	if got := b.told(); got != "connect connect disconnect disconnect" {
		t.Errorf("events: %q", got)
	}
}

// stopNow ends the container.
func (b *bridged) stopNow() {
	now := time.Duration(0)
	b.command(Command{Op: OpStop, Timeout: &now})
}

// TestBecomeFails: what fails, wherever, leaves the VM in the network that it had.
func TestBecomeFails(t *testing.T) {
	for name, vm := range map[string]*fakeVM{
		"device": {runs: true, noNIC: &api.Error{Code: api.CodeInternal, Message: "no tun"}},
		"routes": {runs: true, noRoutes: &api.Error{Code: api.CodeInternal, Message: "no route"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := beginBridged(t, vm)
			b.unlock()
			b.awaitVM()
			if o := <-b.outcome; !o.OK {
				t.Fatalf("%+v", o)
			}
			b.outcome <- Outcome{OK: true}
			before := b.status().Networks
			got := b.become(networks(b.nic(b.id, "net", 5, b.device), b.nic(b.id, "two", 6, "")))
			if !strings.HasPrefix(got, "connect to network two: ") || !strings.Contains(got, "no ") {
				t.Errorf("answer %q", got)
			}
			if now := b.status().Networks; !reflect.DeepEqual(now, before) {
				t.Errorf("recorded: %+v", now)
			}
			if there, _ := plugged(network.DeviceName(b.id, 1)); there {
				t.Error("its device is there")
			}
			if there, in := plugged(b.device); !there || !in {
				t.Error("the first network is gone")
			}
			if len(b.s.plan.NICs) != 1 || len(*b.s.present.Load()) != 1 {
				t.Errorf("planned %+v, present %+v", b.s.plan.NICs, *b.s.present.Load())
			}
			b.stopNow()
			b.end()
			if got := b.told(); got != "connect disconnect" {
				t.Errorf("events: %q", got)
			}
		})
	}
}

// TestBecomeWithoutGuest is of a container that is starting, one that rests, and one
// that has ended.
func TestBecomeWithoutGuest(t *testing.T) {
	w := networks(network.NIC{Name: "user", User: &network.Plan{MAC: "02:42:0a:00:02:0f", Guest: netip.MustParsePrefix("10.0.2.15/24")}})
	for name, c := range map[string]struct {
		running, ended, resting, handed bool
		want                            string
		planned                         int
	}{
		"starting":              {want: "the container is still starting"},
		"ended":                 {running: true, ended: true, want: "the container has ended"},
		"resting":               {running: true, ended: true, resting: true, planned: 1},
		"resting, and starting": {running: true, ended: true, resting: true, handed: true, want: "the container is still starting"},
	} {
		s := &supervisor{handed: c.handed}
		s.fresh()
		for ch, closes := range map[chan struct{}]bool{s.running: c.running, s.ended: c.ended, s.logClosed: c.resting} {
			if closes {
				close(ch)
			}
		}
		if c.resting {
			s.status.Phase = state.PhaseRestarting
		}
		err := s.become(w)
		if got := ""; err != nil {
			got = err.Error()
			if got != c.want {
				t.Errorf("%s: %q", name, got)
			}
		} else if c.want != "" {
			t.Errorf("%s: no error", name)
		}
		if len(s.plan.NICs) != c.planned || len(s.plan.VM.NICs) != c.planned {
			t.Errorf("%s: planned %+v", name, s.plan.NICs)
		}
	}
	if err := (&supervisor{}).become(&Networks{NICs: w.NICs}); err == nil {
		t.Error("lists that do not fit together")
	}
}
