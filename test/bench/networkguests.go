package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Ways to a guest.
const (
	byBare      = "bare TAP"
	byBridge    = "bridge"
	byPublished = "published port of a bridge"
	byUser      = "user mode"
	byPasst     = "passt"
)

// startGuests starts a guest for each way.
func (n *networker) startGuests() error {
	for _, start := range []func() error{n.startBridge, n.startUser, n.startBare, n.startPasst} {
		if err := start(); err != nil {
			return err
		}
	}
	return n.await()
}

func (n *networker) startBridge() error {
	id, err := n.startGuest("", append([]string{"--network", "bridge"}, publish(bridgeDigit)...)...)
	if err != nil {
		return err
	}
	n.guests[byPublished] = "127.0.0.1:" + bridgeDigit
	n.guests[byBridge], err = n.micropod("inspect", "--format", "{{.NetworkSettings.IPAddress}}:", id)
	return err
}

func (n *networker) startUser() error {
	n.guests[byUser] = "127.0.0.1:" + userDigit
	_, err := n.startGuest("", append([]string{"--network", "user"}, publish(userDigit)...)...)
	return err
}

// The first digits of published ports, before the servers' own.
const (
	bridgeDigit = "1"
	userDigit   = "2"
)

// publish publishes the servers on loopback.
func publish(digit string) []string {
	var flags []string
	for _, port := range []string{sourcePort, sinkPort, echoPort} {
		flags = append(flags, "-p", "127.0.0.1:"+digit+port+":"+port)
	}
	return flags
}

// The links of the guests that are given another end on the host: networks that
// the host is in by no other way.
const (
	bareDevice = "bare"
	bareSubnet = "10.77.0.0/24"
	bareHost   = "10.77.0.1"
	bareGuest  = "10.77.0.15"
	bareMTU    = "1500" // a bridge's

	passtSubnet  = "10.78.0.0/24"
	passtGateway = "10.78.0.1"
	passtGuest   = "10.78.0.15"
	passtMTU     = "65520" // that of user mode
	passtDigit   = "3"     // as bridgeDigit
)

// startBare starts a guest at a TAP device that has the host's address itself,
// with the MTU of a bridge.
func (n *networker) startBare() error {
	n.guests[byBare] = bareGuest + ":"
	if err := ip("tuntap add dev " + bareDevice + " mode tap vnet_hdr"); err != nil {
		return err
	}
	qemu, err := n.rewire(byBare, "tap,id=nic0,ifname="+bareDevice+",script=no,downscript=no,vhost=off")
	if err != nil {
		return err
	}
	if _, err := n.startAt(qemu, "bare", bareSubnet, bareGuest, bareMTU); err != nil {
		return err
	}
	if err := ip("address add " + bareHost + "/24 dev " + bareDevice); err != nil {
		return err
	}
	return ip("link set " + bareDevice + " mtu " + bareMTU + " up")
}

// startPasst starts a guest at the end of passt (https://passt.top), with the MTU
// of user mode, where there is a passt.
func (n *networker) startPasst() error {
	passt, err := exec.LookPath("passt")
	if err != nil {
		fmt.Fprintf(n.out, "\n== network: passt is not on PATH, and left out\n")
		return nil
	}
	n.guests[byPasst] = "127.0.0.1:" + passtDigit
	// We take QEMU's connection: passt has given up its rights before it listens.
	path := filepath.Join(n.dir, "passt.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	qemu, err := n.rewire(byPasst, "stream,id=nic0,server=off,addr.type=unix,addr.path="+path)
	if err != nil {
		return err
	}
	id, err := n.startAt(qemu, "passt", passtSubnet, passtGuest, passtMTU)
	if err != nil {
		return err
	}
	if err := l.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer c.Close()
	link, err := c.File()
	if err != nil {
		return err
	}
	defer link.Close()
	if err := n.runPasst(passt, link); err != nil {
		return err
	}
	// Until the guest has spoken passt does not know its MAC address.
	_, err = n.micropod("exec", id, "arping", "-c", "1", "-I", "eth0", passtGateway)
	return err
}

// runPasst starts passt for a link. It ends when QEMU closes its end.
func (n *networker) runPasst(passt string, link *os.File) error {
	var ports []string
	for _, port := range []string{sourcePort, sinkPort, echoPort} {
		ports = append(ports, passtDigit+port+":"+port)
	}
	cmd := n.command(passt, "--quiet", "--foreground", "--one-off", "--fd", "3", "--ipv4-only", "--interface", bareDevice,
		"--address", passtGuest, "--netmask", "24", "--gateway", passtGateway, "--mtu", passtMTU,
		"--tcp-ports", "127.0.0.1/"+strings.Join(ports, ","), "--udp-ports", "none")
	cmd.ExtraFiles = []*os.File{link}
	return cmd.Start()
}

// rewire makes a directory for PATH, in which QEMU is a script that gives the
// guest's device another end on the host: all else of the guest is as it is in
// user mode.
func (n *networker) rewire(name, netdev string) (string, error) {
	const program = "qemu-system-x86_64"
	qemu, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(n.dir, "qemu-"+strings.ReplaceAll(name, " ", "-"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	script := "#!/bin/sh\nfor arg do\n\tshift\n\tcase $arg in socket,id=nic0,*) arg=" + quote(netdev) + " ;; esac\n\tset -- \"$@\" \"$arg\"\ndone\nexec " + quote(qemu) + " \"$@\"\n"
	return dir, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700)
}

// startAt starts a guest of a network of its own.
func (n *networker) startAt(qemu, network, subnet, address, mtu string) (id string, err error) {
	if _, err := n.micropod("network", "create", "--driver", "user", "--subnet", subnet, "--opt", "com.docker.network.driver.mtu="+mtu, network); err != nil {
		return "", err
	}
	return n.startGuest(qemu, "--network", network, "--ip", address)
}

// startGuest starts a guest with the servers; qemu is the directory of its QEMU, ""
// for that on PATH. A guest from a template has the devices that the template had.
func (n *networker) startGuest(qemu string, flags ...string) (id string, err error) {
	args := append([]string{"--root", n.root, "--templates=false", "run", "--detach"}, append(n.flags, flags...)...)
	cmd := n.command(n.bin, append(args, n.image, "sh", "-c", servers)...)
	if qemu != "" {
		cmd.Env = append(os.Environ(), "PATH="+qemu+":"+os.Getenv("PATH"))
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("start a guest %s: %w\n%s", strings.Join(flags, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// ip runs ip(8).
func ip(words string) error {
	if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", words, err, out)
	}
	return nil
}
