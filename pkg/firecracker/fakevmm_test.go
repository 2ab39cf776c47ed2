package firecracker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/vmm"
)

// The test binary, run under another name, is a firecracker that does what the
// name says: "fake-ok", "fake-early", … The VMM gets no environment, so the
// name is what can carry this.
const fakePrefix = "fake-"

// guardVerb makes the test binary a jail's guard.
const guardVerb = "guard"

func TestMain(m *testing.M) {
	if mode, ok := strings.CutPrefix(filepath.Base(os.Args[0]), fakePrefix); ok {
		switch mode {
		case "supervisor":
			fakeSupervisor()
		case "jailer-supervisor":
			fakeJailSupervisor()
		case "hog":
			hog()
			os.Exit(0)
		}
		os.Exit(fakeVMM(mode, os.Args[1:]))
	}
	if len(os.Args) == 3 && os.Args[1] == guardVerb {
		os.Exit(RunGuard(os.Args[2]))
	}
	os.Exit(m.Run())
}

// fakeBinary returns the path of a firecracker that behaves as mode says.
func fakeBinary(t *testing.T, mode string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fakePrefix+mode)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeHost is a machine with a usable KVM.
func fakeHost(dir string) (host, error) {
	h := host{kvm: filepath.Join(dir, "kvm"), cpuinfo: filepath.Join(dir, "cpuinfo"),
		apiVersion: func(*os.File) (int, error) { return kvmAPIVersion, nil }}
	if err := os.WriteFile(h.kvm, nil, 0o600); err != nil {
		return h, err
	}
	return h, os.WriteFile(h.cpuinfo, []byte("processor\t: 0\nflags\t\t: fpu vme svm\n"), 0o600)
}

func fakeVMM(mode string, args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		return fakeVersion(mode)
	}
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	log, err := os.OpenFile(flags["--log-path"], os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 152
	}
	fmt.Fprintf(log, "2026-01-01T00:00:00 [%s:main:INFO] Running\n", flags["--id"])
	switch mode {
	case "early":
		fmt.Fprintln(log, "2026-01-01T00:00:00 [x:main:ERROR] Arguments parsing error:\nno such argument")
		fmt.Fprintln(log, "2026-01-01T00:00:00 [x:main:ERROR] Firecracker exiting with error. exit_code=153")
		return 153
	case "loose":
		unix.Umask(0)
	case "never":
		fmt.Fprintln(log, "waiting")
		time.Sleep(time.Hour)
	}
	l, err := net.Listen("unix", flags["--api-sock"])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if mode == "silent" { // bound, never answered
		fmt.Fprintln(log, "waiting")
		time.Sleep(time.Hour)
	}
	s := &fakeAPI{version: fakeRelease(mode)}
	s.on = func(method, path string, body []byte) string {
		if mode == "hang" && path == "/actions" {
			fmt.Fprintln(log, "waiting")
			time.Sleep(time.Hour)
		}
		return fakeDevice(mode, path, body)
	}
	s.serve(l)
	return 0
}

func fakeRelease(mode string) string {
	if v, ok := strings.CutPrefix(mode, "v"); ok {
		return v
	}
	return "1.16.1"
}

func fakeVersion(mode string) int {
	switch mode {
	case "garbage":
		fmt.Println(strings.Repeat("garbage ", 100000))
	case "broken":
		return 1
	default:
		fmt.Printf("Firecracker v%s\n\n2026-01-01T00:00:00 [anonymous-instance:main] Firecracker exiting\n", fakeRelease(mode))
	}
	return 0
}

// fakeDevice does what a request brings about.
func fakeDevice(mode, path string, body []byte) string {
	switch {
	case mode == "refuse" && path == "/drives/vdb":
		return "Drive config error: Unable to open"
	case mode == "die" && path == "/boot-source":
		fmt.Fprintln(os.Stderr, "thread 'fc_api' panicked")
		_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		time.Sleep(time.Hour)
	case path == "/vsock":
		var v Vsock
		if err := json.Unmarshal(body, &v); err != nil {
			return err.Error()
		}
		l, err := net.Listen("unix", v.UDSPath)
		if err != nil {
			return err.Error()
		}
		go fakeGuest(l)
	}
	return ""
}

// fakeGuest takes orders on the vsock's socket.
func fakeGuest(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewScanner(c)
		for in.Scan() {
			verb, rest, _ := strings.Cut(in.Text(), " ")
			switch verb {
			case "exit":
				code, err := strconv.Atoi(rest)
				if err != nil {
					code = 99
				}
				os.Exit(code)
			case "print":
				fmt.Println(rest)
			case "flood":
				n, _ := strconv.Atoi(rest)
				line := strings.Repeat("x", 1023) + "\n"
				for range n {
					fmt.Print(line)
				}
			}
			fmt.Fprintln(c, "done")
		}
	}
}

// order connects to the fake guest and gives orders; the last may end it.
func order(t *testing.T, c vmm.Config, orders ...string) {
	t.Helper()
	conn, err := net.Dial("unix", c.VsockPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewScanner(conn)
	for _, o := range orders {
		if _, err := fmt.Fprintln(conn, o); err != nil {
			t.Fatal(err)
		}
		in.Scan()
	}
}

// fakeSupervisor starts a VM, tells its pid on stdout and waits to be killed.
// Its arguments are the binary, the directory of the VM and any for a network.
func fakeSupervisor() {
	dir := os.Args[2]
	d := New(Options{Binary: os.Args[1], Guard: []string{"/proc/self/exe", guardVerb}})
	c := configIn(dir)
	if len(os.Args) > 3 {
		c.NICs = []vmm.NIC{{MAC: "02:00:00:00:00:01", MTU: 1500}}
	}
	h, err := fakeHost(dir)
	if err == nil {
		d.host = h
		var m vmm.Machine
		if m, err = d.Start(testContext(), c); err == nil {
			fmt.Println(m.PID())
			time.Sleep(time.Hour)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// fakeJailSupervisor configures a VM in a jail, tells its pid and user, and
// waits to be killed.
func fakeJailSupervisor() {
	dir := os.Args[2]
	d, err := newJailDriver(os.Args[1], dir)
	if err == nil {
		var m *machine
		if m, err = runSteps(d, configIn(dir), true); err == nil {
			fmt.Println(m.PID(), m.jail.id())
			time.Sleep(time.Hour)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// hog enters cgroups and takes more memory than a VM of these tests may.
func hog() {
	for _, procs := range os.Args[1:] {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
	b := make([]byte, 400<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}
