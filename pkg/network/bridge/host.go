package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/state"
)

// lockTime is how long others may have the lock: many who start at once wait for
// each other, and each of them a moment for the kernel. One that is stopped, or that
// the kernel does not answer, is not waited for.
const lockTime = 2 * time.Minute

// alone runs change alone among all processes of all Hosts. When ctx ends before it
// is its turn, the error is the cause of that.
func (h Host) alone(ctx context.Context, change func() error) (err error) {
	if !word(h.Table, maxVM) {
		return fmt.Errorf("nftables table %.120q: not a name", h.Table)
	}
	if err := h.makeDirectory(); err != nil {
		return err
	}
	lock, err := state.LockWithin(ctx, h.Lock, lockTime)
	if err != nil {
		return fmt.Errorf("network %w", err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return change()
}

// locked is alone, with what the tables of this one have.
func (h Host) locked(change func(*transaction) error) error {
	return h.alone(context.Background(), func() error { return h.withTables(change) })
}

func (h Host) withTables(change func(*transaction) error) (err error) {
	t, err := openTables(h.Table)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	begun, err := t.reader.generation()
	if err != nil {
		return err
	}
	have, whole, err := t.read()
	if err != nil {
		return err
	}
	return change(&transaction{h, t, have, whole, begun, removePort})
}

// transaction is a change under the lock.
type transaction struct {
	host   Host
	tables *tables
	// have is what the tables have, whole that no part of the policy lacks.
	have  contents
	whole bool
	// rules is the generation of the kernel's rules that they are of, if nobody else
	// has changed any since.
	rules uint32
	// drop does with the device of an endpoint that goes what is to be done.
	drop func(device string) error
}

// set makes the tables have want.
func (x *transaction) set(want contents) error {
	changed, err := x.tables.change(x.have, want, x.whole)
	if err != nil {
		return err
	}
	if changed {
		x.rules++
	}
	x.have, x.whole = want, !want.empty()
	failpoint.Here(failpoint.BridgeTables)
	return nil
}

// Place is an endpoint's on its way into its network. Use from one goroutine.
type Place struct {
	host Host
	e    Endpoint
	// begun says that something of it may be on the host.
	begun bool
	// rules is the generation of the kernel's rules that Join has left; 0 if there is
	// none, or others changed some meanwhile.
	rules uint32
}

// Place of an endpoint. Nothing of it is on the host yet.
func (h Host) Place(e Endpoint) *Place { return &Place{host: h, e: e} }

// Join is Place.Join.
func (h Host) Join(e Endpoint) error { return h.Place(e).Join(context.Background()) }

// Plug is Place.Plug, of an endpoint that somebody has joined.
func (h Host) Plug(e Endpoint) error { return h.Place(e).Plug(context.Background()) }

// Join makes room for an endpoint: the rules and its elements in them, and the
// bridge of its network. The endpoint may be joined already; then what lacks is
// made. Its device need not be there (Plug). An endpoint that could not join leaves
// nothing. Ctx bounds the wait for others who change something.
//
// An address, a device name or a published port that another endpoint still has
// in the rules is this one's from now on: who has it is decided elsewhere. Who had the
// address has nothing more.
func (p *Place) Join(ctx context.Context) error {
	e := p.e
	p.rules = 0
	if err := e.validate(); err != nil {
		return err
	}
	return p.locked(ctx, func(x *transaction) error {
		this := func(p part) bool { return p == e.part() }
		before, displaced := slices.ContainsFunc(x.have.parts(), this), x.have.displaced(e)
		err := x.join(e)
		if err == nil {
			err = forgetClients(e.Forwards)
		}
		if err == nil && len(displaced) > 0 {
			err = forgetGuests(e.addresses())
		}
		if err != nil && !before {
			err = errors.Join(err, x.leave(this, nil, nil))
		}
		if err != nil {
			return err
		}
		// Who is not told of it has joined all the same, and Plug looks.
		if now, err := x.tables.reader.generation(); err == nil && now == x.rules {
			p.rules = now
		}
		return nil
	})
}

// Change is Join for an endpoint that has joined, whose forwards are others now.
func (p *Place) Change(ctx context.Context, e Endpoint) error {
	p.e = e
	return p.Join(ctx)
}

// alone is Host.alone.
func (p *Place) alone(ctx context.Context, change func() error) error {
	return p.host.alone(ctx, func() error {
		p.begun = true
		return change()
	})
}

// locked is Host.locked.
func (p *Place) locked(ctx context.Context, change func(*transaction) error) error {
	return p.alone(ctx, func() error { return p.host.withTables(change) })
}

func (x *transaction) join(e Endpoint) error {
	want := x.have.clone()
	want.add(e)
	// First the rules: a bridge without them would be open.
	if err := x.set(want); err != nil {
		return err
	}
	return x.host.makeBridge(e.Network)
}

// Plug makes the device of an endpoint a port of its network's bridge, and up.
// The device is its VMM's, who takes it away too. What of Join lacks is made; that
// nothing does is known without a look at it where nobody has changed a rule since.
// Ctx is that of Join.
func (p *Place) Plug(ctx context.Context) error {
	if err := p.e.validate(); err != nil {
		return err
	}
	return p.alone(ctx, func() error {
		to, err := p.asJoined()
		if err == nil && to == nil {
			to, err = p.joinAgain()
		}
		if err != nil {
			return err
		}
		return p.host.plug(p.e, to)
	})
}

// asJoined is the bridge, if all is as Join has left it: the rules, and the bridge, of
// which up is the last that it becomes.
func (p *Place) asJoined() (netlink.Link, error) {
	if p.rules == 0 {
		return nil, nil
	}
	now, err := generation()
	if err != nil || now != p.rules {
		return nil, err
	}
	bridge, err := find(p.e.Network.Device())
	if bridge == nil || !p.host.owns(bridge) || bridge.Attrs().Flags&net.FlagUp == 0 {
		return nil, err
	}
	return bridge, nil
}

// joinAgain does what Join does, and returns the bridge.
func (p *Place) joinAgain() (netlink.Link, error) {
	if err := p.host.withTables(func(x *transaction) error { return x.join(p.e) }); err != nil {
		return nil, err
	}
	return bridgeOf(p.e.Network)
}

// Withdraw is Host.Withdraw.
func (p *Place) Withdraw() error { return p.host.Withdraw(p.e) }

// Leave is Host.Leave, of an endpoint whose VM has ended. Where it was never its turn
// to join, nobody is waited for: nothing of it is there. Its device has ended with its
// VMM, as no container has run.
func (p *Place) Leave() error {
	if !p.begun {
		return nil
	}
	return p.host.Leave(p.e)
}

// Leave takes an endpoint away, with its device if that has outlived the VMM, and
// with the last one of a network its bridge, with the last one of all the tables. It
// is no error that nothing is there.
func (h Host) Leave(e Endpoint) error { return h.depart(e, removePort) }

// Withdraw is Leave for an endpoint whose VM goes on. The VMM keeps the device, which
// one that is deleted could make busy with errors: it is down, and in no bridge. Leave
// is for the end of the VM.
func (h Host) Withdraw(e Endpoint) error { return h.depart(e, unplugPort) }

func (h Host) depart(e Endpoint, drop func(device string) error) error {
	if err := e.validate(); err != nil {
		return err
	}
	return h.locked(func(x *transaction) error {
		x.drop = drop
		if !x.have.knows(e) { // then leave does not take it away
			if err := drop(e.Device); err != nil {
				return err
			}
		}
		bridges, err := x.unused(e.Network.Device(), e.Device)
		if err != nil {
			return err
		}
		return x.leave(func(p part) bool { return p == e.part() }, bridges, e.addresses())
	})
}

// unused is the bridge, unless the tables are not whole and it has ports besides
// device: then they do not say who else is there.
func (x *transaction) unused(bridge, device string) ([]string, error) {
	if x.whole {
		return []string{bridge}, nil
	}
	used, err := otherPorts(bridge, device)
	if used || err != nil {
		return nil, err
	}
	return []string{bridge}, nil
}

// leave takes away the endpoints that gone is true of with their devices, then bridges
// that nobody needs: those that the tables knew, and some. The tables come last: what they
// do not have nobody would look for. The connections of the guests are forgotten,
// and those of addresses.
func (x *transaction) leave(gone func(part) bool, some []string, addresses []netip.Addr) error {
	for _, p := range x.have.parts() {
		if !gone(p) {
			continue
		}
		if err := x.drop(p.device); err != nil {
			return err
		}
	}
	want := x.have.clone()
	want.remove(gone)
	needed := want.bridges()
	for _, b := range append(x.have.known(), some...) {
		if slices.Contains(needed, b) {
			continue
		}
		if err := x.host.removeBridge(b); err != nil {
			return err
		}
	}
	addresses = append(x.have.addresses(gone), addresses...)
	if err := x.set(want); err != nil {
		return err
	}
	// An address may be another guest's already.
	others := want.addresses(func(part) bool { return true })
	return forgetGuests(slices.DeleteFunc(addresses, func(a netip.Addr) bool { return slices.Contains(others, a) }))
}
