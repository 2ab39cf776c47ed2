package usernet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// filter decides which frames of a guest are taken at all: those with its own
// addresses, to the other end of the link. A guest that says to be somebody else
// could answer for the gateway, or use up what the stack keeps for each address.
type filter struct {
	mac, gatewayMAC [6]byte
	addr, gateway   [4]byte
}

func newFilter(c Config) filter {
	return filter{mac: [6]byte(c.GuestMAC), gatewayMAC: [6]byte(c.GatewayMAC), addr: c.Guest.Addr().As4(), gateway: c.Gateway.As4()}
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
// RFC 5227. It may ask for the gateway only: the stack, which takes every address
// for its own, would answer for all of them, the guest's included. It may answer
// whoever asks: that is the stack in the name of a client.
func (f filter) admitsARP(frame []byte) bool {
	a := header.ARP(frame[body:])
	if [6]byte(a.HardwareAddressSender()) != f.mac {
		return false
	}
	sender := [4]byte(a.ProtocolAddressSender())
	if a.Op() == header.ARPReply {
		return sender == f.addr
	}
	return (sender == f.addr || sender == [4]byte{}) && [4]byte(a.ProtocolAddressTarget()) == f.gateway
}
