package networld

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// lan makes the LAN with its client, which lives as long as we do.
func lan() error {
	c := exec.Command("/proc/self/exe", "client")
	c.Args[0] = Name
	c.Env = append(os.Environ(), inside+"="+insideLAN)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start the LAN's client: %w", err)
	}
	err = ip(
		fmt.Sprintf("link add lan0 type veth peer name eth0 netns %d", c.Process.Pid),
		"address add 198.18.0.1/24 dev lan0",
		"link set lan0 up",
		"route replace default via 198.18.0.7 dev lan0",
	)
	if err != nil {
		return err
	}
	os.Setenv("LAN", fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
	if _, err := in.Write([]byte{0}); err != nil { // its device is there
		return err
	}
	if _, err := io.ReadFull(out, []byte{0}); err != nil {
		return fmt.Errorf("the LAN's client is not ready: %w", err)
	}
	return nil
}

// client is the other end of the LAN.
func client([]string) error {
	if _, err := io.ReadFull(os.Stdin, []byte{0}); err != nil {
		return err
	}
	err := ip("link set lo up", "address add 198.18.0.7/24 dev eth0", "link set eth0 up")
	if err == nil {
		err = tell("198.18.0.7:80", "client sees ")
	}
	if err == nil {
		_, err = os.Stdout.Write([]byte{0})
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until the world ends
	return err
}
