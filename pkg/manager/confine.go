package manager

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
	"github.com/micropod/micropod/pkg/seccomp"
	"github.com/micropod/micropod/pkg/state"
)

// defaultCapabilities is docker's default set, bit mask a80425fb.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// allCapabilities are those of Linux since 5.9; an older guest ignores the last.
func allCapabilities() []string {
	return append(defaultCapabilities(),
		"CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
		"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_LEASE", "CAP_AUDIT_CONTROL", "CAP_MAC_OVERRIDE",
		"CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
		"CAP_CHECKPOINT_RESTORE",
	)
}

const everyCapability = "ALL"

// capabilities are those of the container, by docker's rules: what is added
// stays, whatever is dropped, but with ALL it is the other way round.
func capabilities(h state.HostConfig) ([]string, error) {
	all := allCapabilities()
	for _, c := range slices.Concat(h.CapAdd, h.CapDrop) {
		if c != everyCapability && !slices.Contains(all, c) {
			return nil, fmt.Errorf("%w: unknown capability: %q", ErrInvalid, c)
		}
	}
	in := func(set []string) func(string) bool { return func(c string) bool { return slices.Contains(set, c) } }
	added, dropped := in(h.CapAdd), in(h.CapDrop)
	switch {
	case h.Privileged:
		return all, nil
	case added(everyCapability):
		return slices.DeleteFunc(all, dropped), nil
	case dropped(everyCapability):
		return slices.DeleteFunc(all, func(c string) bool { return !added(c) }), nil
	}
	basic := in(defaultCapabilities())
	return slices.DeleteFunc(all, func(c string) bool { return !added(c) && (!basic(c) || dropped(c)) }), nil
}

// confinement is what the security options of a container say.
type confinement struct {
	noNewPrivileges bool
	writableCgroups bool
	profile         string // of seccomp: text, or one of the words below
}

// Words in place of a seccomp profile.
const (
	seccompBuiltin    = "builtin"
	seccompUnconfined = "unconfined"
)

func confine(h state.HostConfig) (confinement, error) {
	c := confinement{profile: seccompBuiltin, writableCgroups: h.Privileged}
	if h.Privileged {
		c.profile = seccompUnconfined
	}
	for _, opt := range h.SecurityOpt {
		if opt == "no-new-privileges" {
			c.noNewPrivileges = true
			continue
		}
		key, value, ok := cutOption(opt)
		if !ok {
			return c, fmt.Errorf("%w: invalid --security-opt: %q", ErrInvalid, opt)
		}
		if err := c.set(key, value); err != nil {
			return c, fmt.Errorf("%w: --security-opt %s: %w", ErrInvalid, key, err)
		}
	}
	return c, nil
}

// cutOption cuts KEY=VALUE, or docker's old KEY:VALUE.
func cutOption(opt string) (key, value string, ok bool) {
	if key, value, ok = strings.Cut(opt, "="); ok {
		return key, value, true
	}
	return strings.Cut(opt, ":")
}

func (c *confinement) set(key, value string) (err error) {
	switch key {
	case "no-new-privileges":
		c.noNewPrivileges, err = strconv.ParseBool(value)
	case "writable-cgroups":
		c.writableCgroups, err = strconv.ParseBool(value)
	case "seccomp":
		c.profile = value
	case "apparmor":
		if value != "unconfined" {
			err = fmt.Errorf("%q is not supported: guests have no AppArmor profiles", value)
		}
	case "label":
		if value != "disable" {
			err = fmt.Errorf("%q is not supported: guests have no SELinux policy", value)
		}
	default:
		err = fmt.Errorf("unknown, with the value %q", value)
	}
	return err
}

// filter is the seccomp filter of the container, nil for none.
func (c confinement) filter(caps []string, kernelRelease string) (*api.Seccomp, error) {
	if c.profile == seccompUnconfined {
		return nil, nil
	}
	f, err := filterOf(c.profile, seccomp.Target{Capabilities: caps, Kernel: kernelRelease})
	if err != nil {
		return nil, fmt.Errorf("%w: seccomp profile: %w", ErrInvalid, err)
	}
	if len(f.Program) == 0 {
		return nil, nil
	}
	return &api.Seccomp{Flags: f.Flags, Program: f.Program}, nil
}

// filterOf compiles the text of a profile, or the builtin one.
func filterOf(profile string, t seccomp.Target) (seccomp.Filter, error) {
	if profile == seccompBuiltin {
		return seccomp.DefaultFilter(t)
	}
	p, err := seccomp.Parse([]byte(profile))
	if err != nil {
		return seccomp.Filter{}, err
	}
	return p.Filter(t)
}
