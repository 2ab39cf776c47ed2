package usernet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Offsets in a packet of neighbour discovery (RFC 4861, sections 4.3 and 4.4): the
// options are behind the target. One of them is a link address: of the sender in a
// solicitation, of the target in an advertisement (section 4.6.1).
const (
	ndTarget     = 8
	ndSize       = ndTarget + header.IPv6AddressSize
	ndSourceLink = 1
	ndTargetLink = 2
)

// admits6 reports whether a packet of IPv6 is taken, of which the fixed header is
// there. Of the headers that may be between that one and the transport's, only the
// fragment's is: nobody needs the others, and behind a chain of them anything could be
// hidden from who looks at the first only.
func (f filter) admits6(to [6]byte, p header.IPv6) bool {
	if !f.six.guest.IsValid() || len(p) < header.IPv6MinimumSize+int(p.PayloadLength()) {
		return false
	}
	src, kind := fromAddress(p.SourceAddress()), p.NextHeader()
	payload, fragment := p.Payload(), kind == uint8(header.IPv6FragmentHeader)
	if fragment {
		if len(payload) < header.IPv6FragmentHeaderSize {
			return false
		}
		kind = payload[0]
	}
	switch {
	case kind == uint8(header.ICMPv6ProtocolNumber) && !fragment && f.admitsNeighbour(to, p):
		return true
	case to != f.gatewayMAC || src != f.six.guest.Addr() || fromAddress(p.DestinationAddress()).IsMulticast():
		return false
	case kind == uint8(header.TCPProtocolNumber) || kind == uint8(header.UDPProtocolNumber):
		return true
	case kind != uint8(header.ICMPv6ProtocolNumber):
		return false
	case fragment:
		return admitsICMPFragment(payload)
	}
	return len(payload) > 0 && admitsICMP(payload[0])
}

// admitsICMP reports whether the stack gets a message of ICMPv6, by its type: ping, and
// that nobody is at a port. It would take a router's advertisement, a redirect or a
// query for listeners of the guest's for true, and a smaller MTU of a link that has one.
func admitsICMP(kind byte) bool {
	switch header.ICMPv6Type(kind) {
	case header.ICMPv6EchoRequest, header.ICMPv6EchoReply, header.ICMPv6DstUnreachable:
		return true
	}
	return false
}

// admitsICMPFragment looks at the first fragment, in which the type is. The others are
// nothing without it, and cannot be put over it: RFC 5722.
func admitsICMPFragment(payload []byte) bool {
	first := binary.BigEndian.Uint16(payload[2:])>>3 == 0
	message := payload[header.IPv6FragmentHeaderSize:]
	return !first || len(message) > 0 && admitsICMP(message[0])
}

// admitsNeighbour is admitsARP of IPv6: RFC 4861. The guest's kernel asks for what it
// knows already from its link-local address. One that has no address yet asks only
// whether somebody has its own (RFC 4862, section 5.4), which is not answered. There is
// no other option than the sender's link address.
func (f filter) admitsNeighbour(to [6]byte, p header.IPv6) bool {
	m := p.Payload()
	if len(m) < ndSize {
		return false
	}
	src, dst := fromAddress(p.SourceAddress()), p.DestinationAddress()
	target := netip.AddrFrom16([16]byte(m[ndTarget:]))
	if src != f.six.guest.Addr() && src != f.linkLocal {
		return false
	}
	group := header.SolicitedNodeAddr(address(target))
	switch header.ICMPv6Type(m[0]) {
	case header.ICMPv6NeighborSolicit:
		direct := to == f.gatewayMAC && dst == address(target)
		toGroup := string(to[:]) == string(header.EthernetAddressFromMulticastIPv6Address(group)) && dst == group
		return (direct || toGroup) && f.hears(f.six, target) && f.ownLink(m[ndSize:], ndSourceLink)
	case header.ICMPv6NeighborAdvert:
		return to == f.gatewayMAC && target == src && f.ownLink(m[ndSize:], ndTargetLink)
	}
	return false
}

// ownLink reports whether options are none, or the guest's link address only.
func (f filter) ownLink(options []byte, kind byte) bool {
	return len(options) == 0 || len(options) == 8 && options[0] == kind && options[1] == 1 && [6]byte(options[2:]) == f.mac
}

// toTarget makes an admitted frame to a group, a solicitation, one to the address that
// it asks for. The stack answers for each, but is in the group of the gateway's only.
func toTarget(frame []byte) {
	if binary.BigEndian.Uint16(frame[frameType:]) != uint16(header.IPv6ProtocolNumber) {
		return
	}
	p := header.IPv6(frame[body:])
	group := p.DestinationAddress()
	if !header.IsV6MulticastAddress(group) {
		return
	}
	m := header.ICMPv6(p.Payload())
	target := header.NDPNeighborSolicit(m.MessageBody()).TargetAddress()
	p.SetDestinationAddress(target)
	m.UpdateChecksumPseudoHeaderAddress(group, target)
}
