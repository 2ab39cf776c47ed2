package network

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HostNetworks are the networks that the host's devices are in, and those that
// it has routes to: a guest in one of them could not reach it. What cannot be
// found out is left out.
func HostNetworks() []netip.Prefix {
	var out []netip.Prefix
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p)
			}
		}
	}
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return out
	}
	defer f.Close()
	return append(out, routes(io.LimitReader(f, maxRoutes))...)
}

// maxRoutes bounds what is read of a router's table, in bytes.
const maxRoutes = 1 << 20

// routes reads the targets of the IPv4 routes in proc_pid_net(5)'s route, but
// for the default route and those that lead nowhere.
func routes(r io.Reader) []netip.Prefix {
	var out []netip.Prefix
	for s := bufio.NewScanner(r); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) < 8 {
			continue
		}
		to, ok1 := routeNumber(words[1])
		mask, ok2 := routeNumber(words[7])
		flags, err := strconv.ParseUint(words[3], 16, 32)
		if !ok1 || !ok2 || err != nil || mask == 0 || flags&unix.RTF_REJECT != 0 {
			continue
		}
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], to)
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), bits.OnesCount32(mask)))
	}
	return out
}

// routeNumber reads an address as the kernel prints it: as a number of the CPU,
// of four bytes in the order of the network.
func routeNumber(s string) (uint32, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return 0, false
	}
	var raw [4]byte
	binary.NativeEndian.PutUint32(raw[:], binary.BigEndian.Uint32(b))
	return binary.BigEndian.Uint32(raw[:]), true
}
