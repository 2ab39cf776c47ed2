package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/agent/wire"
)

// tunFile makes TAP devices: https://docs.kernel.org/networking/tuntap.html.
const tunFile = "/dev/net/tun"

// hostNICs are the network devices that the host has given to the guest. No VMM plugs
// one in while it runs: then the guest makes a TAP device, whose frames go over a
// connection to the host.
type hostNICs struct {
	modules *modules

	mu   sync.Mutex // of a change
	list []hostNIC
	away *os.File // the network namespace of those that were put away; nil before
}

// device is a network device, by its number: a container with the rights for it may
// give it another name.
type hostNIC struct {
	mac     string
	address string
	index   int
	tap     *os.File // nil for a device of the VMM
	over    gateways // to which there are routes, unless the container has changed them
}

// gateways are those of a device, "" for none.
type gateways struct{ v4, v6 string }

func gatewaysOf(n api.NIC) gateways { return gateways{n.Gateway, n.Gateway6} }

// setUp configures the hostNICs that the guest was booted with.
func (d *hostNICs) setUp(nics []api.NIC) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := setUpNetwork(nics); err != nil {
		return err
	}
	for i, n := range nics {
		dev, err := net.InterfaceByName(nicName(i))
		if err != nil {
			return err
		}
		d.list = append(d.list, newHostNIC(n, dev.Index, nil))
	}
	return nil
}

// serveNIC serves one connection of PurposeNIC.
func (a *agent) serveNIC(conn net.Conn, r *api.NICRequest) {
	tap, err := a.plug(r)
	if err != nil {
		_ = api.WriteMessage(conn, api.KindReply, api.Reply{Error: asError(err)})
		return
	}
	defer a.nics.forget(tap)
	defer tap.Close()
	if err := api.WriteMessage(conn, api.KindReply, api.Reply{}); err != nil {
		return
	}
	err = wire.Carry(conn, wire.End{File: tap})
	a.log.printf("network device %s has gone: %v", api.Clean(r.NIC.MAC, 32), err)
}

// plug makes a device, which is there as long as its file is open.
func (a *agent) plug(r *api.NICRequest) (*os.File, error) {
	a.mu.Lock()
	ready := a.state == setUp
	a.mu.Unlock()
	if r == nil || !ready {
		return nil, invalid("nic", "no network device, or the guest is not set up")
	}
	tap, err := a.nics.plug(*r)
	if err != nil {
		return nil, internal("network", err)
	}
	return tap, nil
}

func newHostNIC(n api.NIC, index int, tap *os.File) hostNIC {
	return hostNIC{mac: n.MAC, address: n.Address, index: index, tap: tap, over: gatewaysOf(n)}
}

// is reports whether it is the device of n. The same MAC address may be another's in
// another network.
func (o hostNIC) is(n api.NIC) bool { return o.mac == n.MAC && o.address == n.Address }

func (d *hostNICs) plug(r api.NICRequest) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.supersede(r.NIC); err != nil {
		return nil, err
	}
	if len(d.list) >= 2*api.MaxNICs {
		return nil, errors.New("too many network devices")
	}
	tap, name, err := d.newTAP()
	if err != nil {
		return nil, err
	}
	index, err := configureTAP(tap, name, r)
	if err != nil {
		tap.Close()
		return nil, fmt.Errorf("network device %s: %w", name, err)
	}
	d.list = append(d.list, newHostNIC(r.NIC, index, tap))
	return tap, nil
}

// newTAP makes a device with the first free name ethI.
func (d *hostNICs) newTAP() (tap *os.File, name string, err error) {
	fd, err := openTUN()
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.modules.loadLater(tapModules, ""); err != nil {
			return nil, "", err
		}
		fd, err = openTUN()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("kernel %s has no TAP devices (tun): it can be in networks only from its start on", kernelRelease())
	}
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", tunFile, err)
	}
	r, err := unix.NewIfreq("eth%d")
	if err == nil {
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		unix.Close(fd)
		return nil, "", fmt.Errorf("make a TAP device: %w", err)
	}
	return os.NewFile(uintptr(fd), tunFile), r.Name(), nil
}

// openTUN opens the file for Go's poller, which is not to see it before it is a device.
func openTUN() (int, error) {
	return unix.Open(tunFile, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

func configureTAP(tap *os.File, name string, r api.NICRequest) (index int, err error) {
	if err := wire.Offload(tap, r.Segments); err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	dev := nic{fd, name}
	if err := dev.setMAC(r.NIC.MAC); err != nil {
		return 0, fmt.Errorf("set the address %q: %w", api.Clean(r.NIC.MAC, 32), err)
	}
	if err := dev.configure(r.NIC); err != nil {
		return 0, err
	}
	found, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return found.Index, nil
}

// forget drops a TAP device, whose file is closed.
func (d *hostNICs) forget(tap *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = slices.DeleteFunc(d.list, func(o hostNIC) bool { return o.tap == tap })
}

// networks does what the host says about the networks of a container.
func (a *agent) networks(r api.NetworksRequest) error {
	if err := checkHosts(r.Hosts, r.DNS); err != nil {
		return err
	}
	if len(r.NICs) > api.MaxNICs {
		return invalid("networks", "%d network devices, at most %d", len(r.NICs), api.MaxNICs)
	}
	p, err := a.container(r.ID)
	if err != nil {
		return err
	}
	a.nics.mu.Lock()
	defer a.nics.mu.Unlock()
	if err := a.nics.become(r.NICs); err != nil {
		return internal("network", err)
	}
	for i, text := range []string{hostsFile(r.Hosts), resolvFile(r.DNS)} {
		if err := p.etc[i].replace(text); err != nil {
			return internal("etc", err)
		}
	}
	return nil
}

// become takes away what is not among nics, and makes the routes over gateways that
// are new to a device.
func (d *hostNICs) become(nics []api.NIC) error {
	err := d.takeAway(func(dev hostNIC) bool {
		return !slices.ContainsFunc(nics, dev.is)
	})
	if err != nil {
		return err
	}
	for _, n := range nics {
		if err := d.reroute(n); err != nil {
			return err
		}
	}
	return nil
}

// supersede takes away a device that was the same: the host has left its network, and
// could not tell.
func (d *hostNICs) supersede(n api.NIC) error {
	return d.takeAway(func(dev hostNIC) bool { return dev.is(n) })
}

// takeAway takes devices away.
func (d *hostNICs) takeAway(gone func(hostNIC) bool) error {
	var kept []hostNIC
	for _, dev := range d.list {
		if !gone(dev) {
			kept = append(kept, dev)
		} else if dev.tap != nil {
			dev.tap.Close() // perhaps the end of its connection is not known yet
		} else if err := d.putAway(dev.index); err != nil {
			return fmt.Errorf("put network device away: %w", err)
		}
	}
	d.list = kept
	return nil
}

// reroute makes the routes over a device's gateways, if they are others than before.
// Those of before are the container's: one that is to reach others by a tunnel only
// must not get them back.
func (d *hostNICs) reroute(n api.NIC) error {
	i := slices.IndexFunc(d.list, func(o hostNIC) bool { return o.is(n) })
	switch {
	case i < 0 && gatewaysOf(n) == gateways{}:
		return nil
	case i < 0:
		return fmt.Errorf("there is no network device %q", api.Clean(n.MAC, 32))
	}
	to := &d.list[i]
	if to.over == gatewaysOf(n) {
		return nil
	}
	found, err := net.InterfaceByIndex(to.index)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dev := nic{fd, found.Name}
	if err := errors.Join(dev.route4(n), dev.route6(n)); err != nil {
		return err
	}
	to.over = gatewaysOf(n)
	return nil
}
