// Command guest is /init of the contract suite's microVM: it loads the modules
// of its initramfs, reports to the host and then does what the host asks for,
// over whichever channel the VMM offers.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm/vmmtest/wire"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("vmmtest guest: ")
	if err := run(); err != nil {
		log.Print(err)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	for _, m := range []struct{ kind, path string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.path, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	mode, err := os.ReadFile("/mode")
	if err != nil {
		return err
	}
	switch string(mode) {
	case wire.ModeSilent:
		for { // not select: Go calls that a deadlock, which ends init
			time.Sleep(time.Hour)
		}
	case wire.ModeReboot:
		return nil
	case wire.ModePanic:
		return sysrq("c")
	}
	return serve()
}

func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range files { // sorted: the load order
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func sysrq(key string) error {
	if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("1"), 0); err != nil {
		return err
	}
	return os.WriteFile("/proc/sysrq-trigger", []byte(key), 0)
}

func serve() error {
	ch, err := openChannel()
	if err != nil {
		return err
	}
	services := map[uint32]func(channel, net.Conn){
		wire.PortEcho:    func(_ channel, c net.Conn) { io.Copy(c, c) },
		wire.PortSource:  source,
		wire.PortSink:    sink,
		wire.PortCommand: command,
	}
	for port, f := range services {
		l, err := ch.listen(port)
		if err != nil {
			return fmt.Errorf("listen on %d: %w", port, err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					log.Print(err)
					return
				}
				go func() {
					defer c.Close()
					f(ch, c)
				}()
			}
		}()
	}
	for {
		ready, err := ch.dial(wire.PortReady)
		if err != nil {
			return fmt.Errorf("dial the host: %w", err)
		}
		fmt.Fprintf(ready, "%s\n", wire.Ready)
		_, err = io.Copy(io.Discard, ready) // the host holds it as long as it wants the VM
		ready.Close()
		if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ENOTCONN) {
			return nil
		}
		// It was the connection of a template.
	}
}

// source answers a number with that many bytes of the pattern, then closes.
func source(_ channel, c net.Conn) {
	n, err := strconv.ParseInt(readLine(c), 10, 64)
	if err != nil {
		log.Print(err)
		return
	}
	if _, err := io.CopyN(c, wire.Pattern(), n); err != nil {
		log.Print(err)
	}
}

// sink reads to the end and tells the host, on a connection of its own, what
// has arrived.
func sink(ch channel, c net.Conn) {
	h := sha256.New()
	n, err := io.Copy(h, c)
	report, derr := ch.dial(wire.PortReport)
	if derr != nil {
		log.Print(derr)
		return
	}
	defer report.Close()
	fmt.Fprintf(report, "%d %x %v\n", n, h.Sum(nil), err)
}

func command(ch channel, c net.Conn) {
	words := strings.Fields(readLine(c))
	if len(words) == 0 {
		return
	}
	out, err := execute(ch, words)
	if err != nil {
		out = "error: " + err.Error()
	}
	fmt.Fprintf(c, "%s\n", strings.TrimSpace(out))
}

func execute(ch channel, words []string) (string, error) {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "disks":
		return listDisks()
	case "sum":
		return sum(arg(1))
	case "write":
		return "", overwrite(arg(1), arg(2))
	case "dial":
		port, err := strconv.ParseUint(arg(1), 10, 32)
		if err != nil {
			return "", err
		}
		c, err := ch.dial(uint32(port))
		if err != nil {
			return "", err
		}
		return "connected", c.Close()
	case "console":
		return "", fillConsole(arg(1))
	case "nic":
		return nic(arg(1), arg(2), arg(3))
	case "send":
		return send(arg(1), arg(2), arg(3), arg(4))
	case "features":
		return features(arg(1))
	case "cpus":
		b, err := os.ReadFile("/sys/devices/system/cpu/online")
		return string(b), err
	case "cmdline", "uptime":
		b, err := os.ReadFile("/proc/" + words[0])
		return string(b), err
	case "hwrng":
		b, err := os.ReadFile("/sys/class/misc/hw_random/rng_current")
		return string(b), err
	case "reboot":
		return "", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "panic":
		return "", sysrq("c")
	}
	return "", fmt.Errorf("no such command: %q", words)
}

// sum is the SHA-256 of what a file has.
func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// fillConsole writes so many bytes to the serial console.
func fillConsole(bytes string) error {
	n, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	tty, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	_, err = io.CopyN(tty, wire.Pattern(), n)
	return err
}

// listDisks tells name, sectors and the read-only flag of each disk.
func listDisks() (string, error) {
	dirs, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return "", err
	}
	var out []string
	for _, d := range dirs {
		size, err := os.ReadFile(d + "/size")
		if err != nil {
			return "", err
		}
		ro, err := os.ReadFile(d + "/ro")
		if err != nil {
			return "", err
		}
		out = append(out, fmt.Sprintf("%s:%s:%s", filepath.Base(d), strings.TrimSpace(string(size)), strings.TrimSpace(string(ro))))
	}
	return strings.Join(out, " "), nil
}

// overwrite does what root in a guest can do to write a disk.
func overwrite(dev, text string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		// blockdev --setrw
		ro, oerr := os.Open(dev)
		if oerr != nil {
			return oerr
		}
		defer ro.Close()
		if serr := unix.IoctlSetPointerInt(int(ro.Fd()), unix.BLKROSET, 0); serr != nil {
			return fmt.Errorf("%w; setrw: %w", err, serr)
		}
		if f, err = os.OpenFile(dev, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Sync()
}

func readLine(r io.Reader) string {
	line, _ := bufio.NewReader(io.LimitReader(r, 1<<10)).ReadString('\n')
	return strings.TrimSpace(line)
}

// wait polls until f says true; devices appear while modules load.
func wait(what string, f func() bool) error {
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("no %s", what)
		}
	}
	return nil
}
