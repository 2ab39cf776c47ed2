package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctlDir is where the kernel's settings of a network namespace are: those of
// the thread that opens them.
const sysctlDir = "/proc/sys/net"

// bridgeSysctls are of the bridge alone.
func bridgeSysctls(n Network) error {
	four, six := "ipv4/conf/"+n.Device()+"/", "conf/"+n.Device()+"/"
	disable := "1"
	if n.Subnet6.IsValid() {
		disable = "0"
	}
	return errors.Join(
		sysctl(four+"forwarding", flag(!n.Internal)),
		sysctl(four+"rp_filter", "1"),
		sysctl(four+"route_localnet", "0"),
		sysctl(four+"accept_source_route", "0"),
		sysctl(four+"accept_redirects", "0"),
		sysctl(four+"send_redirects", "0"),
		// No guest tells the host where routers are.
		sysctl6(six+"accept_ra", "0"),
		sysctl6(six+"autoconf", "0"),
		sysctl6(six+"accept_redirects", "0"),
		sysctl6(six+"accept_dad", "0"),
		sysctl6(six+"disable_ipv6", disable),
	)
}

// forwarding makes the host a router, as each engine for containers does. It is
// never undone: whoever came later counts on it, and has no need to say so.
func forwarding(n Network) error {
	if n.Internal {
		return nil
	}
	if err := turnOn("ipv4/ip_forward"); err != nil {
		return err
	}
	const all6 = "ipv6/conf/all/forwarding"
	if !n.Subnet6.IsValid() || isOn(all6) {
		return nil
	}
	if err := keepRouters(); err != nil {
		return err
	}
	return turnOn(all6)
}

// keepRouters makes devices that are there go on listening for the routers of
// their link, where the kernel does so itself: else the host would lose its routes
// as it becomes a router.
func keepRouters() error {
	const conf = "ipv6/conf/"
	devices, err := os.ReadDir(filepath.Join(sysctlDir, conf))
	if err != nil {
		return fmt.Errorf("list IPv6 devices: %w", err)
	}
	for _, d := range devices {
		name := conf + d.Name() + "/accept_ra"
		// The default is for devices to come, of guests of others among them.
		if d.Name() == "all" || d.Name() == "default" || !isOn(name) {
			continue
		}
		if err := sysctl(name, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func isOn(name string) bool {
	b, err := os.ReadFile(filepath.Join(sysctlDir, name))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

func turnOn(name string) error {
	if isOn(name) {
		return nil // in a container of its own it is perhaps not for us to write
	}
	return sysctl(name, "1")
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func sysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join(sysctlDir, name), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", strings.ReplaceAll("net/"+name, "/", "."), value, err)
	}
	return nil
}

// sysctl6 sets what there is only where there is IPv6.
func sysctl6(name, value string) error {
	err := sysctl("ipv6/"+name, value)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
