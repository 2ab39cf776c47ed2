package bridge

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A match is the expressions of a part of a rule. The registers are used anew by
// each part.
type match []expr.Any

// firstRegister is NFT_REG32_00; those after it are four bytes on.
const firstRegister = 8

// nameSize is that of a device's name in a register, IFNAMSIZ.
const nameSize = 16

// field is a part of a packet, or of what is known of one.
type field struct {
	size uint32 // bytes
	load func(register uint32) expr.Any
}

func meta(key expr.MetaKey, size uint32) field {
	return field{size, func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }}
}

func payload(base expr.PayloadBase, offset, size uint32) field {
	return field{size, func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: base, Offset: offset, Len: size}
	}}
}

func iifname() field  { return meta(expr.MetaKeyIIFNAME, nameSize) }
func oifname() field  { return meta(expr.MetaKeyOIFNAME, nameSize) }
func protocol() field { return meta(expr.MetaKeyL4PROTO, 1) }

func etherSource() field  { return payload(expr.PayloadBaseLLHeader, 6, 6) }
func etherType() field    { return payload(expr.PayloadBaseLLHeader, 12, 2) }
func arpForm() field      { return payload(expr.PayloadBaseNetworkHeader, 0, 6) }
func arpSenderMAC() field { return payload(expr.PayloadBaseNetworkHeader, 8, 6) }
func arpSender() field    { return payload(expr.PayloadBaseNetworkHeader, 14, 4) }
func source4() field      { return payload(expr.PayloadBaseNetworkHeader, 12, 4) }
func destination4() field { return payload(expr.PayloadBaseNetworkHeader, 16, 4) }
func source6() field      { return payload(expr.PayloadBaseNetworkHeader, 8, 16) }
func destination6() field { return payload(expr.PayloadBaseNetworkHeader, 24, 16) }
func sourcePort() field   { return payload(expr.PayloadBaseTransportHeader, 0, 2) }
func port() field         { return payload(expr.PayloadBaseTransportHeader, 2, 2) }
func icmpType() field     { return payload(expr.PayloadBaseTransportHeader, 0, 1) }
func discoveryOf() field  { return payload(expr.PayloadBaseTransportHeader, 8, 16) } // RFC 4861, 4.3 and 4.4
func connStatus() field {
	return field{4, func(r uint32) expr.Any { return &expr.Ct{Key: expr.CtKeySTATUS, Register: r} }}
}
func connState() field {
	return field{4, func(r uint32) expr.Any { return &expr.Ct{Key: expr.CtKeySTATE, Register: r} }}
}
func packetMark() field    { return meta(expr.MetaKeyMARK, 4) }
func networkFamily() field { return meta(expr.MetaKeyNFPROTO, 1) }

// words is how many registers n bytes need.
func words(n uint32) uint32 { return (n + 3) / 4 }

// load puts fields side by side, as the key of a set of theirs has them.
func load(fields ...field) match {
	var m match
	r := uint32(firstRegister)
	for _, f := range fields {
		m = append(m, f.load(r))
		r += words(f.size)
	}
	return m
}

func in(set string, fields ...field) match {
	return append(load(fields...), &expr.Lookup{SourceRegister: firstRegister, SetName: set})
}

func notIn(set string, fields ...field) match {
	return append(load(fields...), &expr.Lookup{SourceRegister: firstRegister, SetName: set, Invert: true})
}

func is(f field, value ...byte) match { return compare(expr.CmpOpEq, f, value) }

func isNot(f field, value ...byte) match { return compare(expr.CmpOpNeq, f, value) }

func compare(op expr.CmpOp, f field, value []byte) match {
	return append(load(f), &expr.Cmp{Op: op, Register: firstRegister, Data: value})
}

// masked is f & mask compared with value, all of the size of f.
func masked(op expr.CmpOp, f field, mask, value []byte) match {
	return append(load(f),
		&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: f.size, Mask: mask, Xor: make([]byte, f.size)},
		&expr.Cmp{Op: op, Register: firstRegister, Data: value})
}

// anyOf is that one of bits is set in a field of the host's byte order.
func anyOf(f field, bits uint32) match {
	return masked(expr.CmpOpNeq, f, native(bits), native(0))
}

func noneOf(f field, bits uint32) match {
	return masked(expr.CmpOpEq, f, native(bits), native(0))
}

// not is true of a packet that has another of our marks, or none.
func not(bit uint32) match {
	return masked(expr.CmpOpNeq, packetMark(), native(seen|passed), native(bit))
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

func ipv4() match { return is(networkFamily(), unix.NFPROTO_IPV4) }
func ipv6() match { return is(networkFamily(), unix.NFPROTO_IPV6) }

// A name is compared as far as it goes: without its zero it is a prefix.
func prefix(f field, name string) match { return is(f, []byte(name)...) }

func established() match {
	return anyOf(connState(), expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// translated is that the connection was meant for another address: IPS_DST_NAT.
func translated() match { return anyOf(connStatus(), 1<<5) }

// addressType is the kind of the packet's destination, as the routes have it.
func addressType() field {
	return field{4, func(r uint32) expr.Any {
		return &expr.Fib{Register: r, ResultADDRTYPE: true, FlagDADDR: true}
	}}
}

func local() match    { return is(addressType(), native(unix.RTN_LOCAL)...) }
func notLocal() match { return isNot(addressType(), native(unix.RTN_LOCAL)...) }

func udpFrom(port uint16) match {
	return append(is(protocol(), unix.IPPROTO_UDP), is(sourcePort(), portBytes(port)...)...)
}

func icmp6(kind byte) match {
	return append(is(protocol(), unix.IPPROTO_ICMPV6), is(icmpType(), kind)...)
}

func accept() match { return match{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() match   { return match{&expr.Verdict{Kind: expr.VerdictDrop}} }
func jump(chain string) match {
	return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// reject tells the sender, who would wait otherwise.
func reject() match {
	return match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// mark leaves of our bits in the packet's mark only bit.
func mark(bit uint32) match {
	return append(load(packetMark()),
		&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4, Mask: native(^uint32(seen | passed)), Xor: native(bit)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: firstRegister})
}

// forwardTo sends the packet to the address and port that a map has for fields.
func forwardTo(family byte, table string, fields ...field) match {
	portRegister := uint32(firstRegister + 1)
	if family == unix.NFPROTO_IPV6 {
		portRegister = firstRegister + 4
	}
	return append(load(fields...),
		&expr.Lookup{SourceRegister: firstRegister, DestRegister: firstRegister, IsDestRegSet: true, SetName: table},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(family), Specified: true,
			RegAddrMin: firstRegister, RegAddrMax: firstRegister, RegProtoMin: portRegister, RegProtoMax: portRegister,
		})
}

func masquerade() match { return match{&expr.Masq{}} }
