// Package networld runs a command in a network namespace that has a world of
// its own, so that tests of networking neither need nor touch the machine's:
//
//	198.51.100.1, .2   the host's addresses; port 80 tells who asks, at .1
//	2001:db8::1        the host's IPv6 address, likewise; there is no way beyond
//	198.51.100.1:443   the same over TLS, as world.test; the certificate of its CA,
//	                   which nobody knows, is in $NETWORLD_CA
//	127.0.0.1:81       a service that is for the host itself only
//	169.254.169.254    port 80: a cloud's metadata
//	198.51.100.53      the name server: world.test is 198.51.100.1, its TXT record
//	                   is larger than a datagram may be; other names do not exist
//
// As an ordinary user it makes a user namespace too.
//
// With -lan, which takes root, the way out leads through a LAN, to a client in a
// network namespace of its own:
//
//	198.18.0.1         the host's address in the LAN
//	198.18.0.7         the client; port 80 tells who asks
//	$LAN               its namespace, for nsenter --net=$LAN
package networld

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// inside says in which of its namespaces the program was started again.
const (
	inside      = "NETWORLD_INSIDE"
	insideWorld = "world"
	insideLAN   = "lan"
)

// Name is what the program is called that calls Main.
const Name = "networld"

// Main runs the command in os.Args, which is called by the name of Name. Its
// exit code is the command's.
func Main() {
	log.SetFlags(0)
	log.SetPrefix(Name + ": ")
	if len(os.Args) < 2 {
		log.Fatal("usage: " + Name + " [-lan] COMMAND [ARGUMENT...]")
	}
	run := enter
	switch os.Getenv(inside) {
	case insideWorld:
		run = stay
	case insideLAN:
		run = client
	}
	err := run(os.Args[1:])
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		log.Fatal(err)
	}
}

// command runs argv with our streams. Signals of the terminal are its own.
func command(argv []string) *exec.Cmd {
	signal.Ignore(os.Interrupt)
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}

// enter starts this program again in namespaces of its own.
func enter(argv []string) error {
	c := command(append([]string{"/proc/self/exe"}, argv...))
	c.Args[0] = Name
	c.Env = append(os.Environ(), inside+"="+insideWorld)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if id := os.Geteuid(); id != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		c.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_NET_BIND_SERVICE}
	}
	return c.Run()
}

// stay makes the world and runs the command in it.
func stay(argv []string) error {
	os.Unsetenv(inside)
	steps := []func() error{addresses, pings, resolver, servers, secure}
	if argv[0] == "-lan" {
		argv, steps = argv[1:], append(steps, lan)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	// What the test runs has no more rights than it would have elsewhere.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	return command(argv).Run()
}

func addresses() error {
	return ip(
		"link set lo up",
		"address add 198.51.100.1/24 dev lo",
		"address add 198.51.100.2/24 dev lo",
		"address add 198.51.100.53/24 dev lo",
		"address add 169.254.169.254/32 dev lo",
		"address add 2001:db8::1/64 dev lo nodad", // else nobody can bind to it for a moment
		"route add default dev lo src 198.51.100.1",
	)
}

// pings lets our group ping without a privilege: icmp(7).
func pings() error {
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", fmt.Appendf(nil, "%d %[1]d", os.Getegid()), 0)
}

// ip runs the command of that name with each line.
func ip(lines ...string) error {
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// resolver puts a resolv.conf over the machine's.
func resolver() error {
	dir, err := os.MkdirTemp("", "networld")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // the mount keeps the file
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 198.51.100.53\nsearch test\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", target, err)
	}
	return nil
}

func servers() error {
	for at, text := range map[string]string{
		"198.51.100.1:80":    "world sees ",
		"[2001:db8::1]:80":   "world sees ",
		"127.0.0.1:81":       "loopback sees ",
		"169.254.169.254:80": "metadata sees ",
	} {
		if err := tell(at, text); err != nil {
			return err
		}
	}
	udp, err := net.ListenPacket("udp4", "198.51.100.53:53")
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp4", "198.51.100.53:53")
	if err != nil {
		return err
	}
	go names(udp)
	go namesTCP(tcp)
	return nil
}

// tell answers at an address with a text and who asks.
func tell(at, text string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	go http.Serve(l, tells(text))
	return nil
}

// tells is a server that says who asks.
func tells(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s%s\n", text, host)
	})
}

func names(c net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply, err := answer(buf[:n], 512); err == nil {
			c.WriteTo(reply, from)
		}
	}
}

// namesTCP answers one question of each connection: RFC 1035 section 4.2.2.
func namesTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			query := make([]byte, int(size[0])<<8|int(size[1]))
			if _, err := io.ReadFull(c, query); err != nil {
				return
			}
			if reply, err := answer(query, 1<<16-1); err == nil {
				c.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...))
			}
		}()
	}
}

func answer(query []byte, limit int) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, fmt.Errorf("bad question: %w", err)
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	switch {
	case q.Name.String() != "world.test.":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte{198, 51, 100, 1}}}}
	case q.Type == dnsmessage.TypeTXT:
		long := strings.Repeat("x", 250)
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{long, long, long, long}}}}
	}
	b, err := m.Pack()
	if err == nil && len(b) > limit {
		m.Truncated, m.Answers = true, nil
		b, err = m.Pack()
	}
	return b, err
}
