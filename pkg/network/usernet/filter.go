package usernet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// filter decides which frames of a guest are taken at all: those with its own
// addresses, to the other end of the link. A guest that says to be somebody else
// could answer for the gateway, or use up what the stack keeps for each address.
type filter struct {
	mac, gatewayMAC [6]byte
	addr, gateway   [4]byte
	peers           netip.Prefix // others may be there; invalid for nobody
}

func newFilter(c Config) filter {
	f := filter{mac: [6]byte(c.GuestMAC), gatewayMAC: [6]byte(c.GatewayMAC), addr: c.Guest.Addr().As4(), gateway: c.Gateway.As4()}
	if c.Peers != nil {
		f.peers = c.Guest.Masked()
	}
	return f
}

// Offsets in a frame: Ethernet, then IPv4.
const (
	srcMAC    = 6
	frameType = 12
	body      = header.EthernetMinimumSize
	ipSource  = body + 12
)

// admits reports whether a frame is taken. IPv6 is not: the guest has no
// address of it. Pure.
func (f filter) admits(frame []byte) bool {
	if len(frame) < body || [6]byte(frame[srcMAC:]) != f.mac {
		return false
	}
	to := [6]byte(frame)
	switch binary.BigEndian.Uint16(frame[frameType:]) {
	case uint16(header.IPv4ProtocolNumber):
		return to == f.gatewayMAC && len(frame) >= body+header.IPv4MinimumSize && [4]byte(frame[ipSource:]) == f.addr
	case uint16(header.ARPProtocolNumber):
		everybody := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		return (to == f.gatewayMAC || to == everybody) && len(frame) >= body+header.ARPSize && f.admitsARP(frame)
	}
	return false
}

// admitsARP lets a guest speak as itself, or before it has an address: RFC 826,
// RFC 5227. It may ask for the gateway and others of its network, for which the
// gateway stands: the stack, which takes every address for its own, would answer
// for all of them, the guest's included. It may answer whoever asks: that is the
// stack in the name of a client.
func (f filter) admitsARP(frame []byte) bool {
	a := header.ARP(frame[body:])
	if [6]byte(a.HardwareAddressSender()) != f.mac {
		return false
	}
	sender := [4]byte(a.ProtocolAddressSender())
	if a.Op() == header.ARPReply {
		return sender == f.addr
	}
	target := [4]byte(a.ProtocolAddressTarget())
	known := target == f.gateway || target != f.addr && f.peers.Contains(netip.AddrFrom4(target))
	return known && (sender == f.addr || sender == [4]byte{})
}
