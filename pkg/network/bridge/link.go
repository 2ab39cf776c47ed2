package bridge

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

// etherMTU is that of a network that says nothing of it.
const etherMTU = 1500

// mac is the address of a bridge, always the same, as guests remember that of
// their gateway. It says whose the bridge is, too, from its first moment on.
func (h Host) mac(bridge string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(h.Table + " " + bridge))
	return net.HardwareAddr{0x02, 0x6d, sum[0], sum[1], sum[2], sum[3]}
}

func (h Host) owns(l netlink.Link) bool {
	name := l.Attrs().Name
	return l.Type() == "bridge" && strings.HasPrefix(name, bridgePrefix) && bytes.Equal(l.Attrs().HardwareAddr, h.mac(name))
}

// makeBridge makes the bridge of a network what it should be, and up. The
// routing rules are there before, and go after the device is down: a rule without
// its device is left over from somebody.
func (h Host) makeBridge(n Network) error {
	link, err := h.findOrAdd(n)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.Device(), err)
	}
	failpoint.Here(failpoint.BridgeLinked)
	if err := addGate(link); err != nil {
		return fmt.Errorf("bridge %s: %w", n.Device(), err)
	}
	if err := addRules(n.Device()); err != nil {
		return err
	}
	failpoint.Here(failpoint.BridgeRouted)
	if err := h.configure(link, n); err != nil {
		return fmt.Errorf("bridge %s: %w", n.Device(), err)
	}
	failpoint.Here(failpoint.BridgeUp)
	return nil
}

func (h Host) findOrAdd(n Network) (netlink.Link, error) {
	link, err := find(n.Device())
	if err != nil {
		return nil, err
	}
	if link == nil {
		if err := unused(n.Subnet, n.Subnet6); err != nil {
			return nil, err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = n.Device(), h.mac(n.Device())
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, fmt.Errorf("add: %w", err)
		}
		link, err = netlink.LinkByName(n.Device())
		return link, err
	}
	if !h.owns(link) {
		return nil, fmt.Errorf("a device of this name is there that is another's (a %s, %s)", link.Type(), link.Attrs().HardwareAddr)
	}
	return link, nil
}

func (h Host) configure(link netlink.Link, n Network) error {
	mtu := cmp.Or(n.MTU, etherMTU)
	// Set after it was made: so the ports' MTU does not become the bridge's.
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, err)
	}
	if err := bridgeSysctls(n); err != nil {
		return err
	}
	if err := setAddresses(link, n); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return forwarding(n)
}

func setAddresses(link netlink.Link, n Network) error {
	if err := setAddress(link, netip.PrefixFrom(n.Gateway, n.Subnet.Bits())); err != nil || !n.Subnet6.IsValid() {
		return err
	}
	return setAddress(link, netip.PrefixFrom(n.Gateway6, n.Subnet6.Bits()))
}

func setAddress(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // else it is of no use until a first guest is there
	}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("set address %s: %w", p, err)
	}
	return nil
}

// plug makes the endpoint's device a port of its bridge.
func (h Host) plug(e Endpoint, bridge netlink.Link) error {
	port, err := find(e.Device)
	if err == nil && port == nil {
		err = unix.ENODEV
	}
	if err != nil {
		return fmt.Errorf("device %s: %w", e.Device, err)
	}
	mac, _ := net.ParseMAC(e.MAC) // validated
	if err := setPort(port, bridge, h.alias(e.VM), mac); err != nil {
		return fmt.Errorf("device %s: %w", e.Device, err)
	}
	failpoint.Here(failpoint.BridgePlugged)
	return nil
}

// passedOn are the frames to addresses of IEEE 802.1D, 7.12.6, by their last four
// bits, that a port treats as any other: all but those of pause, which the kernel
// drops.
const passedOn = 0xffff &^ (1 << 1)

// setPort makes a device a port behind which is the address guest, for good. Those
// frames would come by no chain and no gate else: the bridge would learn from them
// that another guest's address is here, and hand what is in them to the host's stack,
// as if from a device that is none of ours.
func setPort(port, bridge netlink.Link, alias string, guest net.HardwareAddr) error {
	// The host has no address on this link, its bridge does.
	if err := sysctl6("conf/"+port.Attrs().Name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if port.Attrs().MasterIndex != bridge.Attrs().Index && port.Attrs().Flags&net.FlagUp != 0 {
		// One of a bridge that somebody deleted is up, and a new port learns.
		if err := netlink.LinkSetDown(port); err != nil {
			return fmt.Errorf("set down: %w", err)
		}
	}
	if err := setLink(port, unix.AF_UNSPEC,
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(bridge.Attrs().MTU))), nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.Attrs().Index))),
	); err != nil {
		return fmt.Errorf("make it a port of %s: %w", bridge.Attrs().Name, err)
	}
	if err := errors.Join(setLink(port, unix.AF_BRIDGE, portFlags()), netlink.NeighSet(forwardingEntry(port, guest))); err != nil {
		return fmt.Errorf("set up as a port: %w", err)
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// portFlags are how a bridge treats the port of a guest.
func portFlags() *nl.RtAttr {
	all := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for of, on := range map[int]byte{
		nl.IFLA_BRPORT_ISOLATED: 0, nl.IFLA_BRPORT_LEARNING: 0, nl.IFLA_BRPORT_UNICAST_FLOOD: 0, nl.IFLA_BRPORT_MODE: 0, // hairpin
		// A guest is no bridge, and does not choose the way of frames.
		nl.IFLA_BRPORT_GUARD: 1, nl.IFLA_BRPORT_PROTECT: 1,
	} {
		all.AddRtAttr(of, []byte{on})
	}
	all.AddRtAttr(nl.IFLA_BRPORT_GROUP_FWD_MASK, nl.Uint16Attr(passedOn))
	return all
}

// setLink changes several attributes of a device at once: rtnetlink(7).
func setLink(link netlink.Link, family int, attributes ...*nl.RtAttr) error {
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(family)
	m.Index = int32(link.Attrs().Index)
	r.AddData(m)
	for _, a := range attributes {
		r.AddData(a)
	}
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// forwardingEntry says that an address is behind a port, and stays there.
func forwardingEntry(port netlink.Link, mac net.HardwareAddr) *netlink.Neigh {
	const sticky = 1 << 6 // NTF_STICKY
	return &netlink.Neigh{
		LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP,
		Flags: netlink.NTF_MASTER | sticky, HardwareAddr: mac,
	}
}

// removeBridge takes a bridge of ours away, with its routing rules.
func (h Host) removeBridge(bridge string) error {
	link, err := find(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	ours := link != nil && h.owns(link)
	if ours {
		if err := netlink.LinkSetDown(link); err != nil && !gone(err) {
			return fmt.Errorf("set bridge %s down: %w", bridge, err)
		}
	}
	if ours || link == nil {
		if err := deleteRules(bridge); err != nil {
			return err
		}
	}
	failpoint.Here(failpoint.BridgeUnrouted)
	if ours {
		if err := netlink.LinkDel(link); err != nil && !gone(err) {
			return fmt.Errorf("delete bridge %s: %w", bridge, err)
		}
	}
	failpoint.Here(failpoint.BridgeRemoved)
	return nil
}

// bridgeOf is the bridge of a network, which is there.
func bridgeOf(n Network) (netlink.Link, error) {
	link, err := netlink.LinkByName(n.Device())
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.Device(), err)
	}
	return link, nil
}

// find is nil when there is no such device.
func find(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if gone(err) {
		return nil, nil
	}
	return link, err
}

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

// consistent lists anew while others change what is listed: VMs come and go.
func consistent[T any](list func() (T, error)) (got T, err error) {
	const attempts = 100
	for range attempts {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return got, err
}

// pluggedIn are those whose device has been in its network: by its alias, which it
// gets there and keeps when somebody deletes the bridge.
func (h Host) pluggedIn() (map[part]bool, error) {
	links, err := consistent(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	parts := map[part]bool{}
	for _, l := range links {
		if vm, ours := strings.CutPrefix(l.Attrs().Alias, h.alias("")); ours {
			parts[part{vm, l.Attrs().Name}] = true
		}
	}
	return parts, nil
}

// bridges are the names of those that are ours.
func (h Host) bridges() ([]string, error) {
	links, err := consistent(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var all []string
	for _, l := range links {
		if h.owns(l) {
			all = append(all, l.Attrs().Name)
		}
	}
	return all, nil
}

// otherPorts is that a bridge has ports besides one.
func otherPorts(bridge, device string) (bool, error) {
	link, err := find(bridge)
	if err != nil || link == nil {
		return false, err
	}
	links, err := consistent(netlink.LinkList)
	if err != nil {
		return false, fmt.Errorf("list devices: %w", err)
	}
	return slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Attrs().MasterIndex == link.Attrs().Index && l.Attrs().Name != device
	}), nil
}
