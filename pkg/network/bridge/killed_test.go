package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/micropod/micropod/internal/failpoint"
)

// order is what a process of its own does for a test.
type order struct {
	Host     Host
	Verb     string
	Endpoint Endpoint
}

// orderVariable has an order, as JSON: then this binary is no test.
const orderVariable = "MICROPOD_TEST_BRIDGE_ORDER"

func TestMain(m *testing.M) {
	text := os.Getenv(orderVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := obey(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func obey(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	switch o.Verb {
	case "join":
		return o.Host.Join(o.Endpoint)
	case "plug":
		return o.Host.Plug(o.Endpoint)
	case "leave":
		return o.Host.Leave(o.Endpoint)
	}
	return errors.New("no such order")
}

// process runs bin with an order in the host's namespace.
func (l *lab) process(bin, verb string, e Endpoint, env ...string) (out []byte, err error) {
	text, err := json.Marshal(order{l.h, verb, e})
	if err != nil {
		l.t.Fatal(err)
	}
	err = l.host.try(func() (err error) {
		cmd := exec.Command(bin)
		cmd.Env = append(env, orderVariable+"="+string(text))
		out, err = cmd.CombinedOutput()
		return err
	})
	return out, err
}

// TestTogether is 20 processes that join and leave at once.
func TestTogether(t *testing.T) {
	l := newLab(t)
	before := l.snapshot()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var all []Endpoint
	for i := range 20 {
		all = append(all, testEndpoint(testNetwork(1+i%3), 10+i))
	}
	each := func(verb string) {
		var group sync.WaitGroup
		for _, e := range all {
			group.Go(func() {
				if out, err := l.process(self, verb, e); err != nil {
					t.Errorf("%s of %s: %v\n%s", verb, e.VM, err, out)
				}
			})
		}
		group.Wait()
	}
	each("join")
	want := contents{}
	for _, e := range all {
		want.add(e)
	}
	l.wantContents(want)
	each("leave")
	l.wantSnapshot("after all left", before)
}

// wantContents is that the tables have just that.
func (l *lab) wantContents(want contents) {
	l.t.Helper()
	l.host.do(func() error {
		return l.h.locked(func(x *transaction) error {
			if !x.whole {
				l.t.Error("the policy is not whole")
			}
			if lacks, has := want.minus(x.have), x.have.minus(want); len(lacks) > 0 || len(has) > 0 {
				l.t.Errorf("the tables lack %v, and have %v", lacks, has)
			}
			return nil
		})
	})
}

// TestKilled kills a process at each step of Join, Plug and Leave: what it left is
// mended by whoever comes next, and found by those who look for it.
func TestKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("bridge networks need root")
	}
	bin := filepath.Join(t.TempDir(), "bridge.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "failpoint", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with fail points: %v\n%s", err, out)
	}
	points := map[string][]failpoint.Point{
		"join":  {failpoint.BridgeTables, failpoint.BridgeLinked, failpoint.BridgeRouted, failpoint.BridgeUp},
		"plug":  {failpoint.BridgePlugged},
		"leave": {failpoint.BridgeUnrouted, failpoint.BridgeRemoved, failpoint.BridgeTables},
	}
	var swept []failpoint.Point
	for verb, some := range points {
		swept = append(swept, some...)
		for _, p := range some {
			t.Run(verb+" "+string(p), func(t *testing.T) { testKilled(t, bin, verb, p) })
		}
	}
	for _, p := range failpoint.All() {
		if strings.HasPrefix(string(p), "bridge.") && !slices.Contains(swept, p) {
			t.Errorf("nobody dies at %s", p)
		}
	}
}

func testKilled(t *testing.T, bin, verb string, p failpoint.Point) {
	l := newLab(t)
	e := testEndpoint(testNetwork(1), 2)
	before := l.snapshot()
	g := newSpace(t)
	die := func() {
		t.Helper()
		if verb != "join" {
			l.host.do(func() error { return l.h.Join(e) })
		}
		if verb == "plug" {
			cable(t, link{l.host, e.Device, "", nil}, link{g, "eth0", e.MAC, []string{e.Address.String()}})
		}
		out, err := l.process(bin, verb, e, "MICROPOD_FAILPOINT="+string(p))
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("did not die: %v\n%s", err, out)
		}
		if verb == "plug" { // its VMM dies with it
			l.host.do(func() error {
				dev, err := netlink.LinkByName(e.Device)
				if err != nil {
					return err
				}
				return netlink.LinkDel(dev)
			})
		}
	}
	for name, mend := range map[string]func() error{
		"Leave":   func() error { return l.h.Leave(e) },
		"Remove":  func() error { return l.h.Remove(nobody, nobody) },
		"Restore": func() error { return l.h.Restore(func() ([]Endpoint, error) { return nil, nil }, nobody) },
	} {
		die()
		l.host.do(mend)
		l.wantSnapshot("after "+name, before)
		l.wantLeftovers(nobody)
	}
	die()
	check(t, reach{"", l.guest(e), "198.51.100.9:80", hostUp})
}
