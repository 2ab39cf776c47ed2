// Package usernet is the network of one VM in user space: a TCP/IP stack
// (gVisor's) at the other end of the guest's NIC, which turns what the guest
// sends into connections of this process, and connections to published ports
// into connections to the guest. It needs no privilege, no device and no rule
// of the host, and nothing of it outlives its process.
//
// What it is not: a path for packets. Only TCP, UDP, ping and the gateway's answers
// to ARP and NDP exist; what a guest may reach is decided for each connection, in
// policy.go.
//
// Lifecycle: New binds the published ports, Attach joins the guest's NIC and
// lets clients in, Close frees all. Methods are safe for concurrent use.
package usernet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/micropod/micropod/pkg/network/nameserver"
	"github.com/micropod/micropod/pkg/network/publish"
	"github.com/micropod/micropod/pkg/network/relay"
	"golang.org/x/sync/semaphore"
	gvisor "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Config describes the network of a VM.
type Config struct {
	// Guest is the guest's IPv4 address with the length of its network's prefix.
	// Packets from another one are dropped.
	Guest netip.Prefix
	// Gateway is this side's address, in the same network. The guest finds
	// name servers at its port 53, and at the other ports what Host has.
	Gateway netip.Addr
	// Guest6 and Gateway6 are the same of IPv6; invalid for a guest without, whose
	// frames of IPv6 are dropped.
	Guest6   netip.Prefix
	Gateway6 netip.Addr
	// GuestMAC and GatewayMAC are the addresses of both on the link.
	GuestMAC, GatewayMAC net.HardwareAddr
	// MTU of the link, in bytes, 1280 to 65520.
	MTU int
	// Ports are published on the host.
	Ports []publish.Port
	// Names answers the guest's questions at port 53 of the gateway.
	Names *nameserver.Server
	// Host is the address of the host that a gateway stands for, of the same family;
	// invalid for none. It is called for each connection. A loopback address is not
	// used: what listens there only is not meant for others.
	Host func(gateway netip.Addr) netip.Addr
	// Peers are the others in the guest's network; nil for none.
	Peers Peers
	// Others reports whether an address is in a network of other guests that the
	// host reaches, and this one must not; nil for none. It is called for each
	// connection.
	Others func(netip.Addr) bool
	// Share is how many networks the process has, which share its descriptors; 0
	// is one.
	Share int
	// Internal keeps the guest from all but Names and Peers.
	Internal bool
	Log      *slog.Logger
}

const nic tcpip.NICID = 1

// Network is a running network.
type Network struct {
	c      Config
	stack  *stack.Stack
	policy policy

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	limits  limits
	streams *semaphore.Weighted
	wide    *semaphore.Weighted
	flows   *relay.Flows
	pings   pings
	ports   *publish.Server

	// reroute is the last word on where a connection of the guest goes. Tests
	// have servers on loopback only.
	reroute func(netip.AddrPort) netip.AddrPort

	mu   sync.Mutex
	wire *wire // nil before Attach
}

// New makes the network and listens on the published ports. An error names the
// port that cannot be had; then nothing is left behind.
func New(c Config) (*Network, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	l := limitsFor(relay.OpenFiles(), c.Share)
	ports, err := publish.Listen(c.Ports, publish.Limits{Streams: l.clients, Flows: l.clientFlows}, c.Log)
	if err != nil {
		return nil, err
	}
	n := &Network{
		c:       c,
		ports:   ports,
		policy:  policy{sides: c.sides(), host: c.Host, others: c.Others, internal: c.Internal},
		reroute: func(to netip.AddrPort) netip.AddrPort { return to },
		limits:  l, streams: semaphore.NewWeighted(int64(l.streams)), wide: semaphore.NewWeighted(wideStreams), flows: relay.NewFlows(l.flows), pings: newPings(),
	}
	// Its own log tells of each odd packet, which a guest can make any number of.
	gvisor.SetLevel(gvisor.Warning)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack := tcpip.TCPSACKEnabled(true)
	// gVisor's RACK sends again what a slow guest has not acknowledged after twice
	// the round trip, and is far slower than SACK alone where a TAP device loses a
	// burst.
	recovery := tcpip.TCPRecovery(0)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: bufferSize, Max: bufferSize}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: bufferSize, Max: bufferSize}
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &wait)
	n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery)
	n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send)
	n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, n.tcpForwarder().HandlePacket)
	n.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, n.outboundPing)
	n.stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, n.outboundPing)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.outboundUDP).HandlePacket)
	return n, nil
}

// sides are what the guest has of each family, IPv4 first.
func (c Config) sides() []side {
	all := []side{{c.Guest, c.Gateway}}
	if c.Guest6.IsValid() {
		all = append(all, side{c.Guest6, c.Gateway6})
	}
	return all
}

func (c *Config) check() error {
	for i, s := range c.sides() {
		if s.guest.Addr().Is4() != (i == 0) || s.guest.Addr().Is4In6() || !s.guest.Contains(s.gateway) || s.guest.Addr() == s.gateway {
			return fmt.Errorf("user network: gateway %s and guest %s are not in one network", s.gateway, s.guest)
		}
	}
	switch {
	case len(c.GuestMAC) != 6 || len(c.GatewayMAC) != 6:
		return fmt.Errorf("user network: bad link address %q or %q", c.GuestMAC, c.GatewayMAC)
	case c.MTU < 1280 || c.MTU > 65520:
		return fmt.Errorf("user network: MTU of %d bytes", c.MTU)
	}
	if c.Host == nil {
		c.Host = func(netip.Addr) netip.Addr { return netip.Addr{} }
	}
	if c.Others == nil {
		c.Others = func(netip.Addr) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Names == nil {
		c.Names = nameserver.New(nameserver.Config{Log: c.Log})
	}
	return nil
}

// Attach joins the link: a socket or TAP of which each read is one Ethernet
// frame from the guest, each write one to it. The descriptor is duplicated.
// It works once.
func (n *Network) Attach(link *os.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wire != nil || n.ctx.Err() != nil {
		return errors.New("user network: attached or closed already")
	}
	room, err := roomOf(link)
	if err != nil {
		return fmt.Errorf("user network: look at the guest's link: %w", err)
	}
	file, err := duplicate(link)
	if err != nil {
		return fmt.Errorf("user network: %w", err)
	}
	n.wide.TryAcquire(wideStreams - room) // for good
	w := &wire{file: file, ep: newOutlet(n.ctx, n.c.MTU, n.c.GatewayMAC), admits: newFilter(n.c).take}
	// A guest that sends a wrong checksum harms its own connections. The
	// kernel of a TAP passes on what its guest left to be filled in.
	w.ep.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	if err := n.join(ethernet.New(w.ep)); err != nil {
		file.Close()
		return err
	}
	n.wire = w
	n.wg.Go(func() {
		if err := w.receive(); err != nil && n.ctx.Err() == nil {
			n.c.Log.Error("user network", "err", err)
		}
	})
	n.wg.Go(func() { w.send(n.ctx) })
	return n.ports.Serve(n)
}

// join puts the link into the stack, which from then on takes every address
// for its own: the forwarders see each connection that the guest opens.
func (n *Network) join(ep stack.LinkEndpoint) error {
	if err := n.stack.CreateNIC(nic, ep); err != nil {
		return fmt.Errorf("user network: %s", err)
	}
	var routes []tcpip.Route
	for _, s := range n.policy.sides {
		gateway := tcpip.ProtocolAddress{
			Protocol:          protocol(s.gateway),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(s.gateway), PrefixLen: s.guest.Bits()},
		}
		if err := n.stack.AddProtocolAddress(nic, gateway, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("user network: gateway address: %s", err)
		}
		routes = append(routes, tcpip.Route{Destination: gateway.AddressWithPrefix.Subnet(), NIC: nic})
	}
	if err := n.stack.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("user network: %s", err)
	}
	if err := n.stack.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("user network: %s", err)
	}
	n.stack.SetRouteTable(routes)
	for _, s := range n.policy.sides {
		if err := n.serveNames(s.gateway); err != nil {
			return err
		}
	}
	return nil
}

// dnsPort is where the guest finds the gateway's name server. What comes there
// by TCP is seen by the forwarder, as all connections are.
const dnsPort = 53

func (n *Network) serveNames(gateway netip.Addr) error {
	at := full(netip.AddrPortFrom(gateway, dnsPort))
	c, err := gonet.DialUDP(n.stack, &at, nil, protocol(gateway))
	if err != nil {
		return fmt.Errorf("user network: name server: %w", err)
	}
	n.wg.Go(func() { n.c.Names.ServePacket(n.ctx, c) })
	return nil
}

// begin counts one more piece of work that Close waits for; false once it does.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	n.wg.Add(1)
	return true
}

// Publish publishes ports of a guest that is attached, and had none until now. An error
// leaves it without.
func (n *Network) Publish(ports []publish.Port) error {
	more, err := publish.Listen(ports, publish.Limits{Streams: n.limits.clients, Flows: n.limits.clientFlows}, n.c.Log)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil || len(n.ports.Ports()) > 0 {
		more.Close()
		return errors.New("user network: closed, or its ports are published already")
	}
	n.ports.Close()
	n.ports = more
	return more.Serve(n)
}

// Published lists the ports with the numbers that the host chose.
func (n *Network) Published() []publish.Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ports.Ports()
}

// Close ends every connection and frees every port. Idempotent.
func (n *Network) Close() {
	n.mu.Lock()
	n.cancel()
	if n.wire != nil {
		n.wire.file.Close()
	}
	n.mu.Unlock()
	n.ports.Close()
	n.stack.Destroy()
	n.wg.Wait()
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func fromAddress(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: address(a.Addr()), Port: a.Port()}
}
