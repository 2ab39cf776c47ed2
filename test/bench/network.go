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
	n := &networker{rooted: rooted{bench: b, root: filepath.Join(b.dir, "network")}, guests: map[string]string{}}
	defer func() { err = errors.Join(err, n.end()) }()
	if err := n.prepare(); err != nil {
		return err
	}
	for _, m := range []struct {
		title string
		ask   func(address string) error
	}{
		{fmt.Sprintf("the guest sends %d MiB", n.bulk()>>20), n.download},
		{fmt.Sprintf("the guest takes %d MiB", n.bulk()>>20), n.upload},
		{fmt.Sprintf("%d questions of one byte, each after the answer to the last", n.questions()), n.echo},
	} {
		cs := []contestant{n.client("bridge", m.ask), n.client("published port of a bridge", m.ask), n.client("user mode", m.ask)}
		samples, err := b.alternate(cs...)
		if err != nil {
			return fmt.Errorf("%s: %w", m.title, err)
		}
		fmt.Fprintf(b.out, "\n== %s\n", m.title)
		if err := b.ways(cs, samples); err != nil {
			return err
		}
	}
	// The guests take CPU time, however little.
	if err := n.end(); err != nil {
		return err
	}
	return n.added()
}

// ways prints the ratios to the first contestant, of throughput or of questions
// in a second.
func (b *bench) ways(cs []contestant, samples [][]sample) error {
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	for i, c := range cs {
		line := c.name + "\t" + spreadBy(samples[i], wall).String() + " s"
		if i > 0 {
			line += "\t" + ratio(samples[0], samples[i], wall).String() + " of " + cs[0].name
		}
		fmt.Fprintln(w, line)
	}
	return w.Flush()
}

// networker is what the contestants of the part network share.
type networker struct {
	rooted
	guests map[string]string // addresses by the way to them
}

func (n *networker) bulk() int {
	if n.cold {
		return 1 << 20
	}
	return bulk
}

func (n *networker) questions() int {
	if n.cold {
		return 5
	}
	return questions
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
	for name, flags := range map[string][]string{
		"bridge":    {"--network", "bridge", "-p", "127.0.0.1:19001:9001", "-p", "127.0.0.1:19002:9002", "-p", "127.0.0.1:19003:9003"},
		"user mode": {"--network", "user", "-p", "127.0.0.1:29001:9001", "-p", "127.0.0.1:29002:9002", "-p", "127.0.0.1:29003:9003"},
	} {
		id, err := n.micropod(append(append([]string{"run", "--detach", "--vmm", "qemu"}, flags...), n.source(), "sh", "-c", servers)...)
		if err != nil {
			return err
		}
		if n.guests[name], err = n.micropod("inspect", "--format", "{{.NetworkSettings.IPAddress}}:", id); err != nil {
			return err
		}
	}
	n.guests["published port of a bridge"], n.guests["user mode"] = "127.0.0.1:1", "127.0.0.1:2"
	return n.await()
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
	d := net.Dialer{Timeout: time.Minute}
	c, err := d.DialContext(n.ctx, "tcp4", address+port)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	return talk(c)
}

func (n *networker) download(address string) error {
	return n.ask(address, sourcePort, func(c net.Conn) error {
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

// added compares runs with and without a network.
func (n *networker) added() error {
	run := func(mode string) contestant {
		return contestant{"run --network " + mode, func() (sample, error) {
			return firstLine(n.command(n.bin, "--root", n.root, "run", "--rm", "--vmm", "qemu", "--network", mode, n.source(), "echo", strings.TrimSpace(ready)))
		}}
	}
	for _, mode := range []string{"bridge", "user"} {
		cs := []contestant{run(mode), run("none")}
		if !n.cold {
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
		if err := n.report(cs, samples, []float64{1.02}); err != nil {
			return err
		}
	}
	return nil
}
