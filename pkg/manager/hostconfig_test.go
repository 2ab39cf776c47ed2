package manager

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/state"
)

func TestCapabilities(t *testing.T) {
	basic := defaultCapabilities()
	without := func(set []string, words ...string) []string {
		return slices.DeleteFunc(slices.Clone(set), func(c string) bool { return slices.Contains(words, c) })
	}
	for name, c := range map[string]struct {
		h    HostConfig
		want []string
	}{
		"default":           {HostConfig{}, basic},
		"added":             {HostConfig{CapAdd: []string{"CAP_SYS_ADMIN"}}, append(slices.Clone(basic), "CAP_SYS_ADMIN")},
		"dropped":           {HostConfig{CapDrop: []string{"CAP_MKNOD", "CAP_BPF"}}, without(basic, "CAP_MKNOD")},
		"both":              {HostConfig{CapAdd: []string{"CAP_MKNOD"}, CapDrop: []string{"CAP_MKNOD"}}, basic},
		"all":               {HostConfig{CapAdd: []string{"ALL"}}, allCapabilities()},
		"all but one":       {HostConfig{CapAdd: []string{"ALL"}, CapDrop: []string{"CAP_MKNOD"}}, without(allCapabilities(), "CAP_MKNOD")},
		"none":              {HostConfig{CapDrop: []string{"ALL"}}, []string{}},
		"none but one":      {HostConfig{CapAdd: []string{"CAP_BPF"}, CapDrop: []string{"ALL"}}, []string{"CAP_BPF"}},
		"all beats none":    {HostConfig{CapAdd: []string{"ALL"}, CapDrop: []string{"ALL"}}, allCapabilities()},
		"privileged":        {HostConfig{Privileged: true}, allCapabilities()},
		"privileged, drops": {HostConfig{Privileged: true, CapDrop: []string{"ALL"}}, allCapabilities()},
	} {
		got, err := capabilities(c.h)
		slices.Sort(got)
		slices.Sort(c.want)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	if all := allCapabilities(); len(all) != 41 {
		t.Errorf("%d capabilities, Linux has 41", len(all))
	}
}

func TestConfine(t *testing.T) {
	for _, c := range []struct {
		h    HostConfig
		want confinement
	}{
		{HostConfig{}, confinement{profile: "builtin"}},
		{HostConfig{Privileged: true}, confinement{profile: "unconfined", writableCgroups: true}},
		{HostConfig{Privileged: true, SecurityOpt: []string{"seccomp=builtin"}}, confinement{profile: "builtin", writableCgroups: true}},
		{HostConfig{SecurityOpt: []string{"no-new-privileges"}}, confinement{profile: "builtin", noNewPrivileges: true}},
		{HostConfig{SecurityOpt: []string{"no-new-privileges:true", "no-new-privileges=false"}}, confinement{profile: "builtin"}},
		{HostConfig{SecurityOpt: []string{"seccomp:unconfined"}}, confinement{profile: "unconfined"}},
		{HostConfig{SecurityOpt: []string{"apparmor=unconfined", "label=disable", "writable-cgroups=true"}}, confinement{profile: "builtin", writableCgroups: true}},
	} {
		if got, err := confine(c.h); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v", c.h, got, err)
		}
	}
}

func TestSeccompFilter(t *testing.T) {
	filter := func(h HostConfig) int {
		t.Helper()
		req, err := startRequest(&state.Config{HostConfig: h}, "6.1.0", nil, network.Resolver{})
		if err != nil {
			t.Fatal(err)
		}
		if req.Seccomp == nil {
			return 0
		}
		return len(req.Seccomp.Program)
	}
	builtin := filter(HostConfig{})
	if builtin == 0 || filter(HostConfig{Privileged: true}) != 0 || filter(HostConfig{SecurityOpt: []string{"seccomp=unconfined"}}) != 0 {
		t.Error("who has a filter is not who should")
	}
	if more := filter(HostConfig{CapAdd: []string{"ALL"}}); more == builtin {
		t.Error("the profile does not know the capabilities")
	}
	if own := filter(HostConfig{SecurityOpt: []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}}); own == 0 || own >= builtin {
		t.Errorf("a small profile takes %d bytes", own)
	}
	if off := filter(HostConfig{SecurityOpt: []string{"seccomp={}"}}); off != 0 {
		t.Errorf("an empty profile takes %d bytes", off)
	}
}

func TestRefusedHostConfig(t *testing.T) {
	opt := func(o string) CreateOptions { return CreateOptions{HostConfig: HostConfig{SecurityOpt: []string{o}}} }
	host := func(h HostConfig) CreateOptions { return CreateOptions{HostConfig: h} }
	tmpfs := func(t ...string) CreateOptions { return CreateOptions{Tmpfs: t} }
	for want, o := range map[string]CreateOptions{
		`unknown capability: "CAP_FOO"`:           host(HostConfig{CapAdd: []string{"CAP_FOO"}}),
		`unknown capability: "CAP_BAR"`:           host(HostConfig{CapDrop: []string{"CAP_BAR"}}),
		`foo: unknown, with the value "bar"`:      opt("foo=bar"),
		`invalid --security-opt: "x"`:             opt("x"),
		`parsing "maybe"`:                         opt("no-new-privileges=maybe"),
		"guests have no AppArmor":                 opt("apparmor=docker-default"),
		"guests have no SELinux":                  opt("label=type:x"),
		"systempaths: unknown":                    opt("systempaths=x"),
		"seccomp profile: decode":                 opt("seccomp=/no/profile"),
		`unknown action "x"`:                      opt(`seccomp={"defaultAction":"x"}`),
		"range for oom score adj":                 host(HostConfig{OOMScoreAdj: 1001}),
		"Nano CPUs and CPU Quota cannot both be":  {CPUs: 1, HostConfig: HostConfig{CPUQuota: 50000}},
		"can only be used with 'on-failure'":      host(HostConfig{RestartPolicy: RestartPolicy{Name: "always", MaximumRetryCount: 1}}),
		"retry count cannot be negative":          host(HostConfig{RestartPolicy: RestartPolicy{Name: "on-failure", MaximumRetryCount: -1}}),
		"unknown policy 'x'; use one of":          host(HostConfig{RestartPolicy: RestartPolicy{Name: "x"}}),
		"'AutoRemove' container with restart":     {AutoRemove: true, HostConfig: HostConfig{RestartPolicy: RestartPolicy{Name: "always"}}},
		"SHM size can not be less than 0":         host(HostConfig{ShmSize: -1}),
		"mount path must be absolute":             tmpfs("run"),
		"destination can't be '/'":                tmpfs("/x/.."),
		"duplicate mount point: /x":               tmpfs("/x", "/x/"),
		`invalid tmpfs option "foo"`:              tmpfs("/x:foo"),
		`invalid tmpfs option "size"`:             tmpfs("/x:size"),
		`invalid tmpfs option "huge=always"`:      tmpfs("/x:huge=always"),
		"'y' mount path must be absolute":         host(HostConfig{Mounts: []Mount{{Target: "y"}}}),
		"invalid CPU shares (-1)":                 host(HostConfig{CPUShares: -1}),
		"CPU cfs period can not be less than 1ms": host(HostConfig{CPUPeriod: 999}),
		"CPU cfs quota can not be less than 1ms":  host(HostConfig{CPUQuota: 999}),
		"memory reservation":                      host(HostConfig{MemoryReservation: 1 << 40}),
		"invalid value 0-x for cpuset cpus":       host(HostConfig{CPUSetCPUs: "0-x"}),
		"invalid value 1-0 for cpuset cpus":       host(HostConfig{CPUSetCPUs: "1-0"}),
		"requested 0-1, available: 0-0":           host(HostConfig{CPUSetCPUs: "0-1"}),
	} {
		if _, err := newConfig(o, testImage()); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSpecOfHostConfig(t *testing.T) {
	cfg, err := newConfig(CreateOptions{
		Tmpfs: []string{"/deep/er:size=1m,,exec", "/dev/shm/:size=5m"},
		HostConfig: HostConfig{
			Ulimits: []Ulimit{{Name: "core", Soft: -1, Hard: -1}}, PidsLimit: 9, OOMScoreAdj: 7, CPUQuota: 250000, CPUShares: 3, CPUSetCPUs: "0,2",
			Mounts: []Mount{{Target: "/deep", ReadOnly: true, SizeBytes: 4096, Mode: 0o1770}}, Sysctls: map[string]string{"a.b": "1"},
			DNS: []string{"1.1.1.1"}, DNSSearch: []string{"."}, ExtraHosts: []string{"a:::1"}, SecurityOpt: []string{"no-new-privileges"},
		},
	}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CPUs != 3 {
		t.Errorf("%d CPUs for a quota of two and a half", cfg.CPUs)
	}
	r, err := startRequest(&cfg, "", nil, network.Resolver{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.Spec.Mounts {
		if m.Type == "tmpfs" {
			got = append(got, m.Destination+" "+strings.Join(m.Options, ","))
		}
	}
	want := []string{
		"/dev nosuid,strictatime,mode=755,size=65536k",
		"/deep nosuid,nodev,noexec,ro,size=4096,mode=1770",
		"/deep/er nosuid,nodev,noexec,size=1m,exec",
		"/dev/shm nosuid,nodev,noexec,size=5m",
	}
	if !slices.Equal(got, want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
	p, res := r.Spec.Process, r.Spec.Linux.Resources
	if !slices.Equal(p.Rlimits, []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}, {Type: "RLIMIT_CORE", Soft: 1<<64 - 1, Hard: 1<<64 - 1}}) ||
		!p.NoNewPrivileges || *p.OOMScoreAdj != 7 || *res.Pids.Limit != 9 || *res.CPU.Quota != 250000 || *res.CPU.Shares != 3 || res.CPU.Cpus != "0,2" {
		t.Errorf("process %+v, resources %+v", p, res)
	}
	if r.Hosts[0].Addr != "::1" || r.Hosts[0].Names[0] != "a" || r.DNS.Servers[0] != "1.1.1.1" || len(r.DNS.Search) != 0 || r.Spec.Linux.Sysctl["a.b"] != "1" {
		t.Errorf("names %+v %+v", r.Hosts, r.DNS)
	}
}

func TestPrivilegedSpec(t *testing.T) {
	for _, privileged := range []bool{false, true} {
		r, err := startRequest(&state.Config{HostConfig: HostConfig{Privileged: privileged}}, "", nil, network.Resolver{})
		if err != nil {
			t.Fatal(err)
		}
		if l := r.Spec.Linux; (len(l.MaskedPaths) == 0) != privileged || (len(l.ReadonlyPaths) == 0) != privileged || r.AllDevices != privileged {
			t.Errorf("privileged %v: %+v", privileged, l)
		}
		for _, m := range r.Spec.Mounts {
			if ro := slices.Contains(m.Options, "ro"); ro != (!privileged && strings.HasPrefix(m.Destination, "/sys")) {
				t.Errorf("privileged %v: %+v", privileged, m)
			}
		}
	}
	r, err := startRequest(&state.Config{HostConfig: HostConfig{UnmaskPaths: true}}, "", nil, network.Resolver{})
	if err != nil || len(r.Spec.Linux.MaskedPaths) != 0 || r.AllDevices {
		t.Errorf("unmasked: %+v, %v", r.Spec.Linux, err)
	}
}
