package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/micropod/micropod/pkg/network/bridge"
	"github.com/micropod/micropod/pkg/network/nameserver"
	"github.com/micropod/micropod/pkg/network/publish"
)

// Limits of what a VM in a bridge network has of its supervisor at the same time:
// what goes through its own device has none.
const (
	maxClients = 512 // connections, and flows, of clients on the host itself
	maxAskers  = 64  // connections with questions for names
)

// Names are what a VM finds in its networks by name. The functions are called for
// each question, and from several goroutines.
type Names struct {
	Host    func() netip.Addr // what the host's names stand for
	Lookup  func(name string) (addrs []netip.Addr, known bool)
	Reverse func(netip.Addr) []string
	// Asks tells whether other names are asked of others, and of whom; the host's
	// servers if there are none.
	Asks func() (forwarders []netip.Addr, outside bool)
}

// Joined is a NIC in a bridge network, as its VM's supervisor has it. Nothing of it
// is on the host before Join. Use from one goroutine at a time.
type Joined struct {
	b     Bridge
	ports *publish.Server
	place *bridge.Place // nil before Join

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start takes the sockets of a NIC: those of its published ports, and those at
// which its guest asks for names. Close frees them.
func (b Bridge) Start(names Names, log *slog.Logger) (*Joined, error) {
	ctx, cancel := context.WithCancel(context.Background())
	j := &Joined{b: b, cancel: cancel}
	var err error
	if j.ports, err = publish.Listen(b.Ports, publish.Limits{Streams: maxClients, Flows: maxClients}, log); err != nil {
		cancel()
		return nil, err
	}
	if err := j.answer(ctx, names, log); err != nil {
		j.closeSockets()
		return nil, fmt.Errorf("answer questions for names at %s: %w", b.Endpoint.Network.Gateway, err)
	}
	for _, p := range j.Published() {
		j.b.Endpoint.Forwards = append(j.b.Endpoint.Forwards, Forwards(p)...)
	}
	return j, nil
}

// Forwards are what a published port is for packets from elsewhere. Pure.
func Forwards(p Port) []bridge.Forward {
	out := []bridge.Forward{{Proto: p.Proto, Host: p.Host, Guest: p.Guest}}
	if p.Any {
		out = append(out, bridge.Forward{Proto: p.Proto, Host: netip.AddrPortFrom(netip.IPv6Unspecified(), p.Host.Port()), Guest: p.Guest})
	}
	return out
}

// answer serves names at a port of the gateway, the same for UDP and TCP and for
// both of its addresses. The gateway may be nobody's address yet.
func (j *Joined) answer(ctx context.Context, names Names, log *slog.Logger) error {
	c := names.server(log)
	c.Streams = maxAskers
	e := &j.b.Endpoint
	gateways := []netip.Addr{e.Network.Gateway}
	if e.Address6.IsValid() {
		gateways = append(gateways, e.Network.Gateway6)
	}
	all, port, err := listenAll(ctx, gateways)
	if err != nil {
		return err
	}
	e.NameServer = port
	s := nameserver.New(c)
	guest := []netip.Addr{e.Address.Addr(), e.Address6.Addr()}
	for _, at := range all {
		j.wg.Go(func() { s.ServePacket(ctx, guestPackets{at.udp, guest}) })
		j.wg.Go(func() { s.ServeStream(ctx, guestListener{at.tcp, guest}) })
	}
	return nil
}

// Endpoint is the NIC's place in its network, complete.
func (j *Joined) Endpoint() bridge.Endpoint { return j.b.Endpoint }

// Published lists the ports with the numbers that the host chose.
func (j *Joined) Published() []Port { return j.ports.Ports() }

// Join makes what the NIC needs on the host, but for its device. Where bridge
// networks cannot be had at all, the error says why. Ctx bounds the wait for others who
// change networks.
func (j *Joined) Join(ctx context.Context) error {
	j.place = j.b.Host.Place(j.b.Endpoint)
	err := j.place.Join(ctx)
	if ctx.Err() != nil {
		return err
	}
	return bridge.Why(err)
}

// Plug puts the NIC's device, which the VMM has made, into its network, and lets
// clients on the host in. It follows Join, whose ctx it has.
func (j *Joined) Plug(ctx context.Context) error {
	if err := j.place.Plug(ctx); err != nil {
		return err
	}
	return j.ports.Serve(publish.Direct(j.b.Endpoint.Address.Addr()))
}

// Publish publishes ports of a NIC that is in its network, and had none until now. Before
// it makes the rules for them it calls record, which must know them. An error leaves the
// NIC without. Ctx is that of Join.
func (j *Joined) Publish(ctx context.Context, ports []Port, log *slog.Logger, record func() error) error {
	more, err := publish.Listen(ports, publish.Limits{Streams: maxClients, Flows: maxClients}, log)
	if err != nil {
		return err
	}
	before, none := j.b.Endpoint, j.ports
	j.ports = more
	for _, p := range more.Ports() {
		j.b.Endpoint.Forwards = append(j.b.Endpoint.Forwards, Forwards(p)...)
	}
	if err = record(); err == nil {
		err = j.place.Change(ctx, j.b.Endpoint)
	}
	if err == nil {
		none.Close()
		return more.Serve(publish.Direct(j.b.Endpoint.Address.Addr()))
	}
	more.Close()
	j.b.Endpoint, j.ports = before, none
	return errors.Join(err, j.place.Change(ctx, before), record())
}

// Withdraw frees all that the NIC has on the host but its device, which is the VMM's.
// Close is for the end of the VM.
func (j *Joined) Withdraw() error {
	err := j.place.Withdraw()
	j.closeSockets()
	return err
}

// Close frees all that the NIC has on the host, whether it had joined or not.
func (j *Joined) Close() error {
	var err error
	if j.place != nil {
		err = j.place.Leave()
	}
	j.closeSockets()
	return err
}

func (j *Joined) closeSockets() {
	j.cancel()
	j.ports.Close()
	j.wg.Wait()
}
