package bridge

import (
	"slices"
	"testing"
)

// nobody is true of no VM, and of no bridge.
func nobody(string) bool { return false }

// TestLeftovers are of VMs that are no more.
func TestLeftovers(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	n := testNetwork(1)
	dead, alive, deadToo := testEndpoint(n, 2), testEndpoint(n, 3), testEndpoint(testNetwork(2), 2)
	for _, e := range []Endpoint{dead, alive, deadToo} {
		l.host.do(func() error { return l.h.Join(e) })
	}
	living := func(vm string) bool { return vm == alive.VM }
	l.wantLeftovers(living, "rules of "+dead.Device, "rules of "+deadToo.Device)
	l.host.do(func() error { return l.h.Remove(living, nobody) })
	l.wantLeftovers(living)
	l.host.do(func() error { return l.h.Join(deadToo) })
	l.host.do(func() error { return l.h.Leave(alive) })
	// A bridge that nobody knows of, and a rule without its bridge.
	l.host.run("nft flush ruleset")
	l.wantLeftovers(living, "bridge "+deadToo.Network.Device())
	l.host.run("ip link del " + deadToo.Network.Device())
	l.wantLeftovers(living, "bridge "+deadToo.Network.Device())
	l.host.do(func() error { return l.h.Remove(living, nobody) })
	l.wantLeftovers(living)
	l.wantSnapshot("in the end", before)
}

func (l *lab) wantLeftovers(living func(string) bool, want ...string) {
	l.t.Helper()
	var got []string
	l.host.do(func() error {
		all, err := l.h.Leftovers(living, nobody)
		for _, x := range all {
			got = append(got, x.String())
		}
		return err
	})
	if !slices.Equal(got, want) {
		l.t.Errorf("leftovers %q, want %q", got, want)
	}
}

// TestPersistent is a TAP device that its VMM has made persistent before it ended.
func TestPersistent(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	e := testEndpoint(testNetwork(1), 2)
	plugged := func() {
		t.Helper()
		l.host.do(func() error { return l.h.Join(e) })
		l.host.run("ip tuntap add dev " + e.Device + " mode tap")
		l.host.do(func() error { return l.h.Plug(e) })
	}
	for when, leave := range map[string]func() error{
		"Leave":  func() error { return l.h.Leave(e) },
		"Remove": func() error { return l.h.Remove(nobody, nobody) },
	} {
		plugged()
		l.host.do(leave)
		l.wantSnapshot("after "+when, before)

		plugged()
		l.host.run("nft flush ruleset")
		l.host.do(leave)
		l.wantSnapshot("after a flush and "+when, before)
	}

	plugged()
	l.host.do(func() error { return l.h.Restore(func() ([]Endpoint, error) { return nil, nil }, nobody) })
	l.wantLeftovers(func(vm string) bool { return vm == e.VM })
	l.wantLeftovers(nobody, "device "+e.Device)
	other := Host{Table: l.h.Table + "-other", Lock: l.h.Lock}
	l.host.do(func() error { return other.Remove(nobody, nobody) })
	l.wantLeftovers(nobody, "device "+e.Device)
	l.host.do(func() error { return l.h.Remove(nobody, nobody) })
	l.wantLeftovers(nobody)
	l.wantSnapshot("in the end", before)
}
