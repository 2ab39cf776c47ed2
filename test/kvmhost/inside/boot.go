package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Main never returns in the emulated machine, where this program is PID 1 and
// the server. Elsewhere it does nothing.
func Main() {
	switch os.Getenv(markerName) {
	case markerInit:
		if os.Getpid() == 1 {
			end(boot())
		}
	case markerServe:
		if os.Getppid() == 1 {
			if err := serve(); err != nil {
				fmt.Println("kvmhost:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
}

// end stops the machine. The console is what the other side shows.
func end(err error) {
	fmt.Println("kvmhost:", err)
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

// boot makes the machine's Linux and stays until the server ends.
func boot() error {
	for _, m := range early() {
		if err := m.mount(); err != nil {
			return err
		}
	}
	config, err := readConfig()
	if err != nil {
		return err
	}
	if err := awaitClock("/sys/devices/system/clocksource/clocksource0/current_clocksource"); err != nil {
		return err
	}
	for _, m := range config.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	for _, m := range root(config) {
		if err := m.mount(); err != nil {
			return err
		}
	}
	if err := switchRoot(newRoot); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	return superviseServer()
}

// clockLimit is for the kernel to measure its clock, which takes a second, and more
// where it is held up meanwhile.
const clockLimit = time.Minute

// awaitClock waits until the kernel has measured the frequency of the time stamp
// counter a second time, and goes by it. The first measure is rough on a busy
// machine, and the module kvm remembers what it finds when it is loaded. If the other
// is more than 250 ppm higher, each VM "requested TSC rate below hardware speed" and
// its timers are late by as long as the host has run (kvm_set_tsc_khz and its caller
// in arch/x86/kvm/x86.c of Linux 6.1, on a CPU without constant_tsc).
func awaitClock(file string) error {
	for end := time.Now().Add(clockLimit); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("look at the clock: %w", err)
		}
		name := strings.TrimSpace(string(b))
		if name == "tsc" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the clock is still %s after %s, not tsc", name, clockLimit)
		}
	}
}

func readConfig() (c Config, err error) {
	b, err := os.ReadFile("/" + ConfigFile)
	if err != nil {
		return c, err
	}
	err = json.Unmarshal(b, &c)
	return c, err
}

// loadModule does nothing about a module that is there already.
func loadModule(m Module) error {
	f, err := os.Open("/modules/" + m.File)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), m.Parameters, 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", m.File, err)
	}
	return nil
}

// switchRoot makes dir the root. The initramfs stays below it, empty of
// interest: what counts is that pivot_root works on what is now the root.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("switch to %s: %w", dir, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch to %s: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch to %s: %w", dir, err)
	}
	return unix.Chdir("/")
}

// settle does what a distribution's start scripts would.
func settle() error {
	unix.Umask(0o022)
	if err := unix.Sethostname([]byte("kvmhost")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +cpuset +io +memory +pids"), 0); err != nil {
		return fmt.Errorf("offer cgroup controllers: %w", err)
	}
	for _, link := range [][2]string{{"fd", "fd"}, {"stdin", "fd/0"}, {"stdout", "fd/1"}, {"stderr", "fd/2"}} {
		if err := os.Symlink("/proc/self/"+link[1], "/dev/"+link[0]); err != nil {
			return err
		}
	}
	for path, mode := range map[string]uint32{"/dev/kvm": 0o660, "/dev/net/tun": 0o666} {
		if err := unix.Chmod(path, mode); err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
	}
	return unix.Chown("/dev/kvm", 0, kvmGroup)
}

// kvmGroup owns /dev/kvm. The machine's own group of that name may not exist.
const kvmGroup = 36

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// superviseServer starts this program again as the server and reaps everything
// until that one has ended.
func superviseServer() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{markerName + "=" + markerServe}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if pid == cmd.Process.Pid {
			return fmt.Errorf("the server has ended: status %#x", uint32(status))
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("reap: %w", err)
		}
	}
}
