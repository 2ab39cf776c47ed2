package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netns"
)

// The servers of a measured guest: one that sends without end, one that takes
// everything, one that sends back.
const (
	sourcePort = "9001"
	sinkPort   = "9002"
	echoPort   = "9003"
	servers    = "nc -ll -p " + sourcePort + " -e cat /dev/zero & nc -ll -p " + sinkPort + " -e sh -c 'cat > /dev/null' & nc -ll -p " + echoPort + " -e cat & wait"
)

// What a round moves, in bytes, and asks.
const (
	bulk      = 256 << 20
	questions = 500
)

// network compares the ways to a guest's servers, for the same guest, and what a
// network adds to a run. All of it happens in a network namespace of its own.
func (b *bench) network() (err error) {
	if os.Geteuid() != 0 {
		fmt.Fprintf(b.out, "\n== network: left out, bridges need root\n")
		return nil
	}
	if err := adopt(); err != nil {
		return err
	}
	n := &networker{rooted: rooted{bench: b, root: filepath.Join(b.dir, "network")}, guests: map[string]string{}, size: bulk, times: questions}
	n.image, n.flags = n.source(), []string{"--vmm", "qemu"}
	defer func() { err = errors.Join(err, n.end()) }()
	if err := n.prepare(); err != nil {
		return err
	}
	if err := n.compareAll(); err != nil {
		return err
	}
	// The guests take CPU time, however little.
	if err := n.end(); err != nil {
		return err
	}
	return n.added()
}

// compareAll compares the ways by all that is asked of a guest.
func (n *networker) compareAll() error {
	for _, m := range []struct {
		title string
		ask   func(address string) error
	}{
		{fmt.Sprintf("the guest sends %d MiB", n.bulk()>>20), n.download},
		{fmt.Sprintf("the guest takes %d MiB", n.bulk()>>20), n.upload},
		{fmt.Sprintf("%d questions of one byte, each after the answer to the last", n.questions()), n.echo},
	} {
		if err := n.compare(m.title, m.ask); err != nil {
			return fmt.Errorf("%s: %w", m.title, err)
		}
	}
	return nil
}

// compare measures all ways to the servers, and prints ratios of throughput, or of
// questions in a second.
func (n *networker) compare(title string, ask func(address string) error) error {
	ways := []string{byBare, byBridge, byPublished, byUser}
	if _, ok := n.guests[byPasst]; ok {
		ways = append(ways, byPasst)
	}
	var cs []contestant
	for _, way := range ways {
		cs = append(cs, n.client(way, ask))
	}
	samples, err := n.alternate(cs...)
	if err != nil {
		return err
	}
	fmt.Fprintf(n.out, "\n== %s\n", title)
	w := tabwriter.NewWriter(n.out, 0, 0, 2, ' ', 0)
	of := func(a, b int, target float64) {
		r := ratio(samples[b], samples[a], wall)
		fmt.Fprintf(w, "%s / %s\t%s\t%s\n", ways[a], ways[b], r.precise(), reached(r.median, target))
	}
	for i, way := range ways {
		fmt.Fprintf(w, "%s\t%s s\t\n", way, spreadBy(samples[i], wall).precise())
	}
	of(1, 0, 0.95)
	of(2, 1, 0)
	of(3, 1, 0)
	if len(ways) > 4 {
		of(3, 4, 1)
	}
	return w.Flush()
}

// networker is what the contestants of the part network share.
type networker struct {
	rooted
	guests map[string]string         // addresses by the way to them
	within map[string]netns.NsHandle // namespaces of the host's end, where it is not here, by addresses
	image  string
	flags  []string // of run
	size   int      // bytes that a round moves
	times  int      // questions of a round
}

func (n *networker) bulk() int {
	if n.cold {
		return 1 << 20
	}
	return n.size
}

func (n *networker) questions() int {
	if n.cold {
		return 5
	}
	return n.times
}

func (n *networker) source() string { return "oci:" + n.images + ":busybox" }

// prepare starts the guests.
func (n *networker) prepare() error {
	if err := os.Mkdir(n.root, 0o700); err != nil {
		return err
	}
	if err := os.Symlink(n.kernel, filepath.Join(n.root, "vmlinux")); err != nil {
		return err
	}
	if _, err := n.micropod("pull", "--quiet", n.source()); err != nil {
		return err
	}
	return n.startGuests()
}

// await waits until all servers listen.
func (n *networker) await() error {
	for way, address := range n.guests {
		for begun := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			err := errors.Join(n.ask(address, sinkPort, func(net.Conn) error { return nil }), n.echoes(address, 1))
			if err == nil {
				break
			}
			if time.Since(begun) > time.Minute {
				return fmt.Errorf("%s: %w", way, err)
			}
		}
	}
	return nil
}

// client measures one way.
func (n *networker) client(way string, ask func(address string) error) contestant {
	return contestant{way, func() (sample, error) {
		begun := time.Now()
		err := ask(n.guests[way])
		return sample{wall: time.Since(begun)}, err
	}}
}

// ask connects with a server of a guest; address is all but the last digits of
// its port.
func (n *networker) ask(address, port string, talk func(net.Conn) error) error {
	var c net.Conn
	dial := func() (err error) {
		d := net.Dialer{Timeout: time.Minute}
		c, err = d.DialContext(n.ctx, "tcp4", address+port)
		return err
	}
	if ns, elsewhere := n.within[address]; elsewhere {
		dial = visit(ns, dial)
	}
	if err := dial(); err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return err
	}
	return talk(c)
}

func (n *networker) download(address string) error {
	return n.ask(address, sourcePort, func(c net.Conn) error {
		// The guest's handshake with a passt of 2023 ends only when there is data.
		if _, err := c.Write([]byte{'q'}); err != nil {
			return err
		}
		_, err := io.CopyN(io.Discard, c, int64(n.bulk()))
		return err
	})
}

func (n *networker) upload(address string) error {
	return n.ask(address, sinkPort, func(c net.Conn) error {
		if _, err := c.Write(make([]byte, n.bulk())); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		// The end of what the server says is the end of what it has read.
		_, err := io.Copy(io.Discard, c)
		return err
	})
}

func (n *networker) echo(address string) error { return n.echoes(address, n.questions()) }

func (n *networker) echoes(address string, times int) error {
	return n.ask(address, echoPort, func(c net.Conn) error {
		b := []byte{'q'}
		for range times {
			if _, err := c.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// added compares runs with and without a network, of VMs that go on from a template
// and of VMs that boot: beside a boot there is more time for what the host does.
func (n *networker) added() error {
	for _, flags := range [][]string{nil, {"--templates=false"}} {
		for _, mode := range []string{"bridge", "user"} {
			if err := n.addedBy(mode, flags); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *networker) addedBy(mode string, flags []string) error {
	run := func(mode string) contestant {
		args := append(append([]string{"--root", n.root}, flags...), "run", "--rm", "--vmm", "qemu", "--network", mode, n.source(), "echo", strings.TrimSpace(ready))
		return contestant{strings.Join(append(flags, "run --network "+mode), " "), func() (sample, error) { return firstLine(n.command(n.bin, args...)) }}
	}
	cs := []contestant{run(mode), run("none")}
	if !n.cold && flags == nil {
		for _, c := range cs { // templates of their kinds
			for range 2 {
				if _, err := c.run(); err != nil {
					return err
				}
			}
		}
	}
	samples, err := n.alternate(cs...)
	if err != nil {
		return err
	}
	fmt.Fprintf(n.out, "\n== from the command to the first line of output, with a network and without\n")
	return n.report(cs, samples, []float64{1.02})
}
