package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

// hostFlags are the flags that docker keeps under HostConfig: how the container
// is confined, and what surrounds it.
type hostFlags struct {
	capAdd, capDrop, securityOpt    []string
	privileged                      bool
	ulimits, sysctls                []string
	pidsLimit                       int64
	oomScoreAdj                     int
	shmSize, memoryReservation      sizeValue
	memorySwap                      swapValue
	cpuShares, cpuPeriod, cpuQuota  int64
	cpusetCPUs                      string
	throttle                        throttleFlags
	dns, dnsSearch, dnsOptions      []string
	extraHosts, mounts, exposed     []string
	ipc, pid, uts, cgroupns, userns modeValue
	network                         networkFlags
}

func (h *hostFlags) register(f *pflag.FlagSet) {
	list := func(to *[]string, name, usage string, check func(string) (string, error)) {
		f.Var(newChecked(to, "list", check), name, usage)
	}
	list(&h.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)", checkExtraHost)
	list(&h.capAdd, "cap-add", "Add Linux capabilities", checkCapability)
	list(&h.capDrop, "cap-drop", "Drop Linux capabilities", checkCapability)
	f.Var(h.cgroupns.of("cgroupns", "private"), "cgroupns", `Cgroup namespace to use (only "private")`)
	f.Int64Var(&h.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period, in the guest")
	f.Int64Var(&h.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota, in the guest")
	f.Int64VarP(&h.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight), in the guest")
	f.StringVar(&h.cpusetCPUs, "cpuset-cpus", "", "Virtual CPUs in which to allow execution (0-3, 0,1)")
	h.throttle.register(f)
	list(&h.dns, "dns", "Set custom DNS servers", checkAddress)
	list(&h.dnsOptions, "dns-option", "Set DNS options", checkWord)
	list(&h.dnsOptions, "dns-opt", "Set DNS options", checkWord)
	f.Lookup("dns-opt").Hidden = true // docker's older name
	list(&h.dnsSearch, "dns-search", "Set custom DNS search domains", checkDomain)
	list(&h.exposed, "expose", "Expose a port or a range of ports", unchecked)
	f.Var(h.ipc.of("ipc", "private"), "ipc", `IPC mode to use (only "private")`)
	f.Var(&h.memoryReservation, "memory-reservation", "Memory soft limit, in the guest")
	f.Var(&h.memorySwap, "memory-swap", "Memory and swap together: the memory, or -1, since a guest has no swap")
	f.Var(newChecked(&h.mounts, "mount", checkMount), "mount", "Attach a filesystem mount to the container (only type=tmpfs)")
	f.IntVar(&h.oomScoreAdj, "oom-score-adj", 0, "Tune the guest's OOM preferences (-1000 to 1000)")
	f.Var(h.pid.of("pid"), "pid", "PID namespace to use (only its own)")
	f.Int64Var(&h.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.BoolVar(&h.privileged, "privileged", false, "Give all capabilities and devices of the guest to the container; harmless to the host")
	list(&h.securityOpt, "security-opt", "Security Options", checkSecurityOpt)
	f.Var(&h.shmSize, "shm-size", "Size of /dev/shm")
	f.Var(newChecked(&h.sysctls, "map", checkSysctl), "sysctl", "Sysctl options of the guest's kernel")
	f.Var(newChecked(&h.ulimits, "ulimit", checkUlimit), "ulimit", "Ulimit options")
	f.Var(h.userns.of("userns"), "userns", "User namespace to use (only the guest's)")
	f.Var(h.uts.of("uts"), "uts", "UTS namespace to use (only its own)")
	h.network.register(f)
}

// hostConfig turns what was typed into the manager's words.
func (h *hostFlags) hostConfig(o *manager.CreateOptions) error {
	c := manager.HostConfig{
		RestartPolicy: o.HostConfig.RestartPolicy,
		CapAdd:        sortedSet(h.capAdd), CapDrop: sortedSet(h.capDrop), Privileged: h.privileged,
		PidsLimit: h.pidsLimit, OOMScoreAdj: h.oomScoreAdj, ShmSize: int64(h.shmSize),
		CPUShares: h.cpuShares, CPUPeriod: h.cpuPeriod, CPUQuota: h.cpuQuota, CPUSetCPUs: h.cpusetCPUs,
		MemoryReservation: int64(h.memoryReservation),
		DNS:               h.dns, DNSSearch: h.dnsSearch, DNSOptions: h.dnsOptions, ExtraHosts: h.extraHosts,
		Ulimits: parseUlimits(h.ulimits), Sysctls: keyed(h.sysctls),
	}
	for _, m := range h.mounts {
		mount, err := parseMount(m)
		if err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, mount)
	}
	for _, opt := range h.securityOpt {
		if opt == "systempaths=unconfined" {
			c.UnmaskPaths = true
			continue
		}
		opt, err := readProfile(opt)
		if err != nil {
			return err
		}
		c.SecurityOpt = append(c.SecurityOpt, opt)
	}
	for _, e := range h.exposed {
		ports, err := parseExposed(e)
		if err != nil {
			return err
		}
		o.ExposedPorts = append(o.ExposedPorts, ports...)
	}
	h.throttle.apply(&c)
	if err := h.network.apply(o, &c); err != nil {
		return err
	}
	o.HostConfig = c
	return h.memorySwap.check(o.MemoryBytes)
}

// sortedSet is docker's order of capabilities; ALL makes the others needless.
func sortedSet(words []string) []string {
	if slices.Contains(words, "ALL") {
		return []string{"ALL"}
	}
	words = slices.Clone(words)
	slices.Sort(words)
	return slices.Compact(words)
}

// keyed makes a map of KEY=VALUE words; nil for none.
func keyed(words []string) map[string]string {
	var out map[string]string
	for _, w := range words {
		if out == nil {
			out = map[string]string{}
		}
		k, v, _ := strings.Cut(w, "=")
		out[k] = v
	}
	return out
}

// checkCapability gives a name docker's form. Which names there are, the manager
// knows.
func checkCapability(s string) (string, error) {
	name := strings.ToUpper(strings.TrimSpace(s))
	if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	return name, nil
}

func checkUlimit(s string) (string, error) {
	_, err := units.ParseUlimit(s)
	return s, err
}

// parseUlimits reads checked limits, each name once: the last one counts.
func parseUlimits(words []string) []manager.Ulimit {
	byName := map[string]manager.Ulimit{}
	for _, w := range words {
		if u, err := units.ParseUlimit(w); err == nil {
			byName[u.Name] = manager.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		}
	}
	var out []manager.Ulimit
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

var sysctlForm = regexp.MustCompile(`^[a-zA-Z0-9_-]+([./][a-zA-Z0-9_:-]+)+$`)

// checkSysctl takes any parameter: docker allows those of a namespace only, but
// here the whole kernel is the container's.
func checkSysctl(s string) (string, error) {
	key, _, ok := strings.Cut(s, "=")
	if !ok || !sysctlForm.MatchString(key) {
		return "", fmt.Errorf("sysctl '%s' is not allowed", s)
	}
	return s, nil
}

func checkAddress(s string) (string, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil || addr.Zone() != "" {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return addr.String(), nil
}

var (
	domainForm = regexp.MustCompile(`^([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9_-]*[a-zA-Z0-9])(\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9_-]*[a-zA-Z0-9]))*\.?$`)
	letter     = regexp.MustCompile(`[a-zA-Z]`)
)

func checkDomain(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s != "." && (len(s) > 255 || !letter.MatchString(s) || !domainForm.MatchString(s)) {
		return "", fmt.Errorf("%s is not a valid domain", s)
	}
	return s, nil
}

// checkWord keeps a file of /etc one word a word.
func checkWord(s string) (string, error) {
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }) {
		return "", fmt.Errorf("%q is not one word", s)
	}
	return s, nil
}

// checkExtraHost takes NAME:ADDRESS or NAME=ADDRESS, and gives the first.
func checkExtraHost(s string) (string, error) {
	at := strings.IndexAny(s, ":=")
	if i := strings.IndexByte(s, '='); i >= 0 {
		at = i
	}
	if at <= 0 {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	name, addr := s[:at], strings.TrimSuffix(strings.TrimPrefix(s[at+1:], "["), "]")
	if _, err := checkWord(name); err != nil {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if _, err := netip.ParseAddr(addr); err != nil && addr != "host-gateway" {
		return "", fmt.Errorf("invalid IP address in add-host: %q", addr)
	}
	return name + ":" + addr, nil
}

// parseExposed reads PORT[-PORT][/PROTOCOL].
func parseExposed(s string) ([]string, error) {
	ports, proto, ok := strings.Cut(s, "/")
	if !ok {
		proto = "tcp"
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	invalid := func(err error) error { return fmt.Errorf("invalid range format for --expose: %s, error: %w", s, err) }
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return nil, invalid(err)
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil {
		return nil, invalid(err)
	}
	switch strings.ToLower(proto) {
	case "tcp", "udp", "sctp":
	default:
		return nil, invalid(fmt.Errorf("unknown protocol %q", proto))
	}
	if a > b {
		return nil, invalid(fmt.Errorf("invalid range specified for port: %s", ports))
	}
	var out []string
	for p := a; p <= b; p++ {
		out = append(out, fmt.Sprintf("%d/%s", p, strings.ToLower(proto)))
	}
	return out, nil
}

// sizeValue is a size such as 64m.
type sizeValue int64

func (v *sizeValue) Type() string   { return "bytes" }
func (v *sizeValue) String() string { return strconv.FormatInt(int64(*v), 10) }

func (v *sizeValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	*v = sizeValue(n)
	return err
}

// swapValue is memory and swap together; -1 is as much swap as there is.
type swapValue struct{ sizeValue }

func (v *swapValue) Set(s string) error {
	if s == "-1" {
		v.sizeValue = -1
		return nil
	}
	return v.sizeValue.Set(s)
}

// check takes what a guest without swap can give.
func (v *swapValue) check(memory int64) error {
	switch n := int64(v.sizeValue); {
	case n <= 0 || n == memory:
		return nil
	case memory == 0:
		return errors.New("you should always set the Memory limit when using Memoryswap limit")
	case n < memory:
		return errors.New("minimum memoryswap limit should be larger than memory limit")
	}
	return &unsupportedFlagError{name: "memory-swap", value: units.BytesSize(float64(v.sizeValue)), why: "a guest has no swap"}
}

// modeValue is a namespace that can only be the container's own.
type modeValue struct {
	flag string
	ours []string // values that say so
	set  string
}

func (m *modeValue) of(flag string, ours ...string) pflag.Value {
	m.flag, m.ours = flag, ours
	return m
}

func (m *modeValue) Type() string   { return "string" }
func (m *modeValue) String() string { return m.set }

func (m *modeValue) Set(s string) error {
	kind, _, _ := strings.Cut(s, ":")
	switch {
	case s == "" || slices.Contains(m.ours, s):
		m.set = s
		return nil
	case kind == "host":
		return &unsupportedFlagError{name: m.flag, value: s, why: "the container has a kernel of its own, and shares no namespace with the host"}
	case kind == "container" || s == "shareable":
		return &unsupportedFlagError{name: m.flag, value: s, why: "containers in different VMs share no namespace"}
	case s == "none" && m.flag == "ipc":
		return &unsupportedFlagError{name: m.flag, value: s}
	}
	return fmt.Errorf("invalid %s mode", strings.ToUpper(m.flag))
}
