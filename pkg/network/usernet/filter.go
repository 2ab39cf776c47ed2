package usernet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// filter decides which frames of a guest are taken at all: those with its own
// addresses, to the other end of the link. A guest that says to be somebody else
// could answer for the gateway, or use up what the stack keeps for each address.
type filter struct {
	mac, gatewayMAC [6]byte
	four, six       side // six is empty in a network without IPv6
	linkLocal       netip.Addr
	peers           bool // others may be in the network
}

func newFilter(c Config) filter {
	return filter{
		mac: [6]byte(c.GuestMAC), gatewayMAC: [6]byte(c.GatewayMAC), four: side{c.Guest, c.Gateway}, six: side{c.Guest6, c.Gateway6},
		linkLocal: fromAddress(header.LinkLocalAddr(tcpip.LinkAddress(c.GuestMAC))), peers: c.Peers != nil,
	}
}

// hears reports whether the guest may ask for the link address of another: for that of
// the gateway, and of others of its network, for which the gateway stands. The stack,
// which takes every address for its own, would answer for all of them, the guest's
// included.
func (f filter) hears(of side, target netip.Addr) bool {
	return target == of.gateway || f.peers && target != of.guest.Addr() && of.guest.Contains(target)
}

// take is admits, of a frame that it may change to what the stack understands.
func (f filter) take(frame []byte) bool {
	if !f.admits(frame) {
		return false
	}
	toTarget(frame)
	return true
}

// Offsets in a frame: Ethernet, then IPv4.
const (
	srcMAC    = 6
	frameType = 12
	body      = header.EthernetMinimumSize
	ipSource  = body + 12
)

// admits reports whether a frame is taken. Pure.
func (f filter) admits(frame []byte) bool {
	if len(frame) < body || [6]byte(frame[srcMAC:]) != f.mac {
		return false
	}
	to := [6]byte(frame)
	switch binary.BigEndian.Uint16(frame[frameType:]) {
	case uint16(header.IPv4ProtocolNumber):
		return to == f.gatewayMAC && len(frame) >= body+header.IPv4MinimumSize && netip.AddrFrom4([4]byte(frame[ipSource:])) == f.four.guest.Addr()
	case uint16(header.IPv6ProtocolNumber):
		return len(frame) >= body+header.IPv6MinimumSize && f.admits6(to, frame[body:])
	case uint16(header.ARPProtocolNumber):
		everybody := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		return (to == f.gatewayMAC || to == everybody) && len(frame) >= body+header.ARPSize && f.admitsARP(frame)
	}
	return false
}

// admitsARP lets a guest speak as itself, or before it has an address: RFC 826,
// RFC 5227. It may answer whoever asks: that is the stack in the name of a client.
func (f filter) admitsARP(frame []byte) bool {
	a := header.ARP(frame[body:])
	if [6]byte(a.HardwareAddressSender()) != f.mac {
		return false
	}
	sender, own := netip.AddrFrom4([4]byte(a.ProtocolAddressSender())), f.four.guest.Addr()
	if a.Op() == header.ARPReply {
		return sender == own
	}
	return f.hears(f.four, netip.AddrFrom4([4]byte(a.ProtocolAddressTarget()))) && (sender == own || sender == netip.IPv4Unspecified())
}
