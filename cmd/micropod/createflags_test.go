package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/pflag"
)

func parseCreate(t *testing.T, args ...string) (manager.CreateOptions, error) {
	t.Helper()
	var flags createFlags
	f := pflag.NewFlagSet("create", pflag.ContinueOnError)
	flags.register(f)
	if err := f.Parse(args); err != nil {
		return manager.CreateOptions{}, err
	}
	return flags.options(f, f.Args())
}

func TestCreateOptions(t *testing.T) {
	t.Setenv("FROM_HOST", "host value")
	os.Unsetenv("NOT_ON_HOST")
	seconds := func(n int) *time.Duration { d := time.Duration(n) * time.Second; return &d }
	tests := []struct {
		args string // separated by |
		want func(*manager.CreateOptions)
	}{
		{"busybox", func(*manager.CreateOptions) {}},
		{"busybox|sh|-c|-e X=1", func(o *manager.CreateOptions) { o.Command = []string{"sh", "-c", "-e X=1"} }},
		{"-it|--rm|busybox|-t", func(o *manager.CreateOptions) {
			o.TTY, o.Stdin, o.AutoRemove, o.Command = true, true, true, []string{"-t"}
		}},
		{"-e|A=1|-e|B=|-e|FROM_HOST|-e|NOT_ON_HOST|-e|Q=\"a b\"|busybox", func(o *manager.CreateOptions) {
			o.Env = []string{"A=1", "B=", "FROM_HOST=host value", "NOT_ON_HOST", `Q="a b"`}
		}},
		{"--entrypoint|/bin/sh -x|busybox|a", func(o *manager.CreateOptions) {
			o.Entrypoint, o.Command = []string{"/bin/sh -x"}, []string{"a"}
		}},
		{"--entrypoint=|busybox|a", func(o *manager.CreateOptions) { o.Entrypoint, o.Command = []string{}, []string{"a"} }},
		{"-m|64m|--cpus|1.5|busybox", func(o *manager.CreateOptions) { o.MemoryBytes, o.CPUs = 64<<20, 1.5 }},
		{"-m|1g|busybox", func(o *manager.CreateOptions) { o.MemoryBytes = 1 << 30 }},
		{"-m|1048576k|busybox", func(o *manager.CreateOptions) { o.MemoryBytes = 1 << 30 }},
		{"-m|1073741824|busybox", func(o *manager.CreateOptions) { o.MemoryBytes = 1 << 30 }},
		{"-m|1073741824b|busybox", func(o *manager.CreateOptions) { o.MemoryBytes = 1 << 30 }},
		{"-m|0|busybox", func(*manager.CreateOptions) {}},
		{"--storage-opt|size=2G|busybox", func(o *manager.CreateOptions) { o.StorageBytes = 2 << 30 }},
		{"--device-read-bps|/dev/sda:1.5mb|--device-read-bps|/dev/vda:0|--device-write-iops|/dev/sda:100|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.DeviceReadBps = []manager.ThrottleDevice{{Path: "/dev/sda", Rate: 1572864}, {Path: "/dev/vda"}}
			o.HostConfig.DeviceWriteIOps = []manager.ThrottleDevice{{Path: "/dev/sda", Rate: 100}}
		}},
		{"--stop-timeout|0|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(0) }},
		{"--stop-timeout|-1|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(-1) }},
		{"--stop-timeout|9223372036|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(9223372036) }},
		{"--stop-timeout|9223372037|busybox", func(o *manager.CreateOptions) { d := time.Duration(math.MaxInt64); o.StopTimeout = &d }},
		{"--stop-timeout|-9223372037|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(-1) }},
		{"--stop-signal|sigusr1|busybox", func(o *manager.CreateOptions) { o.StopSignal = "sigusr1" }},
		{"--name|/web|-h|box|--domainname|lan|busybox", func(o *manager.CreateOptions) { o.Name, o.Hostname, o.Domainname = "web", "box", "lan" }},
		{"-l|a=b=c|-l|d|--annotation|x=y|busybox", func(o *manager.CreateOptions) {
			o.Labels = map[string]string{"a": "b=c", "d": ""}
			o.Annotations = map[string]string{"x": "y"}
		}},
		{"-u|1000:29|--group-add|audio|-w|/srv|--init|--read-only|busybox", func(o *manager.CreateOptions) {
			o.User, o.GroupAdd, o.Workdir, o.Init, o.ReadOnly = "1000:29", []string{"audio"}, "/srv", true, true
		}},
		{"--tmpfs|/run:size=1m,mode=700|--tmpfs|/tmp|busybox", func(o *manager.CreateOptions) { o.Tmpfs = []string{"/run:size=1m,mode=700", "/tmp"} }},
		{"--pull|never|--platform|linux/arm64|--vmm|qemu|--kernel|/k|busybox", func(o *manager.CreateOptions) {
			o.Pull, o.Platform, o.VMM, o.Kernel = manager.PullNever, "linux/arm64", "qemu", "/k"
		}},
		{"--restart|no|busybox", func(*manager.CreateOptions) {}},
		{"--restart|on-failure:3|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.RestartPolicy = manager.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
		}},
		{"--cap-add|sys_admin|--cap-add|CAP_NET_ADMIN|--cap-drop|all|--cap-drop|mknod|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.CapAdd, o.HostConfig.CapDrop = []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, []string{"ALL"}
		}},
		{"--cap-add|foo|--cap-drop|mknod|--cap-drop|cap_mknod|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.CapAdd, o.HostConfig.CapDrop = []string{"CAP_FOO"}, []string{"CAP_MKNOD"}
		}},
		{"--ulimit|nofile=10:20|--ulimit|core=-1|--ulimit|nofile=7|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.Ulimits = []manager.Ulimit{{Name: "core", Soft: -1, Hard: -1}, {Name: "nofile", Soft: 7, Hard: 7}}
		}},
		{"--security-opt|no-new-privileges|--security-opt|seccomp:unconfined|--security-opt|systempaths=unconfined|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.SecurityOpt, o.HostConfig.UnmaskPaths = []string{"no-new-privileges", "seccomp:unconfined"}, true
		}},
		{"--privileged|--no-healthcheck|--pids-limit|-1|--shm-size|1g|--oom-score-adj|-5|busybox", func(o *manager.CreateOptions) {
			h := &o.HostConfig
			h.Privileged, h.PidsLimit, h.ShmSize, h.OOMScoreAdj = true, -1, 1<<30, -5
			o.Healthcheck = &manager.Healthcheck{Test: []string{"NONE"}}
		}},
		{"-c|5|--cpu-quota|5000|--cpu-period|10000|--cpuset-cpus|0-1|--memory-reservation|64m|busybox", func(o *manager.CreateOptions) {
			h := &o.HostConfig
			h.CPUShares, h.CPUQuota, h.CPUPeriod, h.CPUSetCPUs, h.MemoryReservation = 5, 5000, 10000, "0-1", 64<<20
		}},
		{"--sysctl|net.a.b=b=c|--sysctl|vm.max_map_count=9|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.Sysctls = map[string]string{"net.a.b": "b=c", "vm.max_map_count": "9"}
		}},
		{"--dns|1.1.1.1|--dns|::1|--dns-search|.|--dns-search|example.com|--dns-option|ndots:2|--dns-opt|x|busybox", func(o *manager.CreateOptions) {
			h := &o.HostConfig
			h.DNS, h.DNSSearch, h.DNSOptions = []string{"1.1.1.1", "::1"}, []string{".", "example.com"}, []string{"ndots:2", "x"}
		}},
		{"--add-host|a:1.2.3.4|--add-host|b=::1|--add-host|c:[::2]|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.ExtraHosts = []string{"a:1.2.3.4", "b:::1", "c:::2"}
		}},
		{"--mount|type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=1770,ro|--mount|type=tmpfs,destination=/y,readonly=false|--mount|type=tmpfs,target=/z|busybox", func(o *manager.CreateOptions) {
			o.HostConfig.Mounts = []manager.Mount{{Target: "/x", ReadOnly: true, SizeBytes: 1 << 20, Mode: 0o1770}, {Target: "/y"}, {Target: "/z"}}
		}},
		{"--expose|80|--expose|1-3/udp|--expose|53/TCP|busybox", func(o *manager.CreateOptions) {
			o.ExposedPorts = []string{"80/tcp", "1/udp", "2/udp", "3/udp", "53/tcp"}
		}},
		{"-m|64m|--memory-swap|64m|busybox", func(o *manager.CreateOptions) { o.MemoryBytes = 64 << 20 }},
		{"--memory-swap|-1|busybox", func(*manager.CreateOptions) {}},
		{"--ca-cert||busybox", func(o *manager.CreateOptions) { o.NoDefaultCACertificates = true }},
		{"--ipc|private|--cgroupns|private|--pid=|--uts=|--userns=|busybox", func(*manager.CreateOptions) {}},
	}
	for _, tt := range tests {
		want := manager.CreateOptions{
			Image: "busybox", Command: []string{}, Labels: map[string]string{}, Annotations: map[string]string{},
			Pull: manager.PullMissing, VMM: "auto",
		}
		tt.want(&want)
		got, err := parseCreate(t, strings.Split(tt.args, "|")...)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.args, got, want)
		}
	}
}

func TestCreateOptionsRefused(t *testing.T) {
	tests := []struct{ args, want string }{
		{"-m|63m|x", "a microVM needs at least 64MiB"},
		{"-m|1q|x", "invalid suffix"},
		{"-m|-1|x", "invalid size"},
		{"--cpus|NaN|x", "decimal number"},
		{"--cpus|-1|x", "between 0"},
		{"--cpus|33|x", "between 0"},
		{"--storage-opt|size=0|x", "invalid --storage-opt size"},
		{"--storage-opt|fs=xfs|x", "--storage-opt fs is not supported"},
		{"--stop-timeout|1.5|x", "invalid syntax"},
		{"--stop-signal|FOO|x", "invalid signal: FOO"},
		{"--stop-signal|0|x", "invalid signal: 0"},
		{"--stop-signal|65|x", "invalid signal: 65"},
		{"--name|a|x", `invalid container name "a"`},
		{"--name|-ab|x", `invalid container name "-ab"`},
		{"--name|a b|x", `invalid container name "a b"`},
		{"--name|a/b|x", `invalid container name "a/b"`},
		{"--name|" + strings.Repeat("a", 129) + "|x", "2 to 128"},
		{"-w|srv|x", "needs to be an absolute path"},
		{"-e|=1|x", "invalid environment variable"},
		{"-e||x", "invalid environment variable"},
		{"-l|=1|x", "empty name"},
		{"--annotation|a|x", "must be key=value"},
		{"--tmpfs|run|x", "must be absolute"},
		{"--tmpfs|/..|x", "must be absolute"},
		{"--pull|sometimes|x", "invalid pull option: 'sometimes'"},
		{"--vmm|xen|x", "must be auto, firecracker or qemu"},
		{"-a|stdlog|x", "valid streams"},
		{"--ulimit|nofile=20:10|x", "ulimit soft limit must be less than or equal to hard limit: 20 > 10"},
		{"--ulimit|foo=1|x", "invalid ulimit type: foo"},
		{"--ulimit|nofile|x", "invalid ulimit argument: nofile"},
		{"--ulimit|nofile=1:2:3|x", "too many limit value arguments"},
		{"--security-opt|foo|x", `invalid --security-opt: "foo"`},
		{"--security-opt|seccomp=none.json|x", "opening seccomp profile (none.json) failed: open none.json: no such file or directory"},
		{"--security-opt|seccomp=createflags_test.go|x", "compacting json for seccomp profile (createflags_test.go) failed"},
		{"--security-opt|seccomp=/dev/zero|x", "larger than"},
		{"--ca-cert|none.pem|x", "open none.pem: no such file or directory"},
		{"--ca-cert|createflags_test.go|x", "CA certificates of createflags_test.go: no certificate in PEM form"},
		{"--ca-cert|/dev/zero|x", "CA certificates of /dev/zero: larger than 1048576 bytes"},
		{"--ca-cert||--ca-cert|.|x", "read .: is a directory"},
		{"--pids-limit|x|x", "invalid syntax"},
		{"--shm-size|-1|x", "invalid size: '-1'"},
		{"--sysctl|foo|x", "sysctl 'foo' is not allowed"},
		{"--sysctl|net.x|x", "sysctl 'net.x' is not allowed"},
		{"--sysctl|=1|x", "sysctl '=1' is not allowed"},
		{"--sysctl|net.=1|x", "sysctl 'net.=1' is not allowed"},
		{"--sysctl|net/../x=1|x", "is not allowed"},
		{"--oom-score-adj|x|x", "invalid syntax"},
		{"--dns|foo|x", "IP address is not correctly formatted: foo"},
		{"--dns-search|a_b..c|x", "a_b..c is not a valid domain"},
		{"--dns-search|1.2|x", "1.2 is not a valid domain"},
		{"--dns-option|a b|x", "not one word"},
		{"--add-host|a|x", `bad format for add-host: "a"`},
		{"--add-host|a:b|x", `invalid IP address in add-host: "b"`},
		{"--add-host|:1.2.3.4|x", `bad format for add-host: ":1.2.3.4"`},
		{"--add-host|a b:1.2.3.4|x", "bad format for add-host"},
		{"--network|host|x", "the guest has a network stack of its own"},
		{"--network|container:y|--network-alias|z|x", "network-scoped aliases are only supported for user-defined networks"},
		{"--network|container:y|--network|none|x", "cannot attach both user-defined and non-user-defined network-modes"},
		{"-p|80/sctp|x", "only tcp and udp"},
		{"--mount|type=tmpfs|x", "target is required"},
		{"--mount|type=tmpfs,dst=/y,src=/x|x", "field Source must not be specified"},
		{"--mount|type=tmpfs,dst=/y,tmpfs-size=x|x", "invalid value for tmpfs-size: x"},
		{"--mount|type=tmpfs,dst=/y,tmpfs-mode=9|x", "invalid value for tmpfs-mode: 9"},
		{"--mount|type=tmpfs,dst=/y,foo=bar|x", "unexpected key 'foo' in 'foo=bar'"},
		{"--mount|type=tmpfs,dst=/y,foo|x", "invalid field 'foo' must be a key=value pair"},
		{"--mount|type=tmpfs,dst=/y,ro=maybe|x", "invalid value for ro: maybe"},
		{"--mount|type=tmpfs,dst=/y,volume-nocopy|x", "cannot mix 'volume-*' options with mount type 'tmpfs'"},
		{"--mount|type=bind,src=/x,dst=/y|x", "--mount type=bind is not supported yet"},
		{"--mount|dst=/y|x", "--mount type=volume is not supported yet"},
		{"--mount|\"|x", "--mount"},
		{"--expose|x|x", `invalid range format for --expose: x, error: strconv.ParseUint: parsing "x": invalid syntax`},
		{"--expose|70000|x", "value out of range"},
		{"--expose|3-1|x", "invalid range specified for port: 3-1"},
		{"--expose|80/foo|x", "unknown protocol"},
		{"--ipc|host|x", "--ipc host is not supported: the container has a kernel of its own"},
		{"--ipc|container:x|x", "--ipc container:x is not supported: containers in different VMs share no namespace"},
		{"--ipc|foo|x", "invalid IPC mode"},
		{"--pid|private|x", "invalid PID mode"},
		{"-m|64m|--memory-swap|128m|x", "--memory-swap 128MiB is not supported: a guest has no swap"},
		{"-m|128m|--memory-swap|64m|x", "minimum memoryswap limit"},
		{"--memory-swap|64m|x", "always set the Memory limit"},
		{"--memory-swap|-2|x", "invalid size"},
		{"--userns|host|x", "--userns host is not supported: "},
		{"--device-read-bps|foo|x", "bad format: foo"},
		{"--device-read-bps|foo:1mb|x", "bad format for device path: foo:1mb"},
		{"--device-write-bps|a:/dev/sda:1mb|x", "bad format for device path: a:/dev/sda:1mb"},
		{"--device-write-bps|/dev/sda:-1|x", "invalid rate for device: /dev/sda:-1. The correct format is <device-path>:<number>[<unit>]"},
		{"--device-read-iops|/dev/sda:1k|x", "invalid rate for device: /dev/sda:1k. The correct format is <device-path>:<number>. "},
		{"--device-write-iops|/dev/sda:-1|x", "invalid rate for device"},
		{"--restart|on-failure:x|x", "maximum retry count must be an integer"},
		{"--restart|:1|x", "no policy provided before colon"},
		{"--rm|--restart|always|x", "cannot specify both --restart and --rm"},
	}
	for _, tt := range tests {
		_, err := parseCreate(t, strings.Split(tt.args, "|")...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.args, err, tt.want)
		}
	}
}

func TestEnvAndLabelFiles(t *testing.T) {
	t.Setenv("FROM_HOST", "h")
	os.Unsetenv("NOT_ON_HOST")
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff# comment\n\n  \t A=1 \nB=\"q\" # b\n   # indented comment\nFROM_HOST\nNOT_ON_HOST\nC=a=b\nD=\r\nA=2\n")
	o, err := parseCreate(t, "--env-file", file, "-e", "C=flag", "--label-file", file, "-l", "A=flag", "x")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=1 ", `B="q" # b`, "FROM_HOST=h", "C=a=b", "D=", "A=2", "C=flag"}; !reflect.DeepEqual(o.Env, want) {
		t.Errorf("env\n got %q\nwant %q", o.Env, want)
	}
	labels := map[string]string{"A": "flag", "B": `"q" # b`, "FROM_HOST": "", "NOT_ON_HOST": "", "C": "a=b", "D": ""}
	if !reflect.DeepEqual(o.Labels, labels) {
		t.Errorf("labels\n got %q\nwant %q", o.Labels, labels)
	}
	for text, want := range map[string]string{
		"A B=1\n":                                "line 1: variable 'A B' contains whitespaces",
		"OK=1\nA =1\n":                           "line 2: variable 'A ' contains whitespaces",
		"=1\n":                                   "no variable name on line '=1'",
		"A=\xff\n":                               "not valid UTF-8",
		"A=\x00\n":                               "NUL",
		"A=" + strings.Repeat("x", 1<<18) + "\n": "too long",
	} {
		write(text)
		for _, flag := range []string{"--env-file", "--label-file"} {
			if _, err := parseCreate(t, flag, file, "x"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %.20q: error %v, want %q", flag, text, err, want)
			}
		}
	}
}

func FuzzParseKeyValue(f *testing.F) {
	for _, s := range []string{"A=1", "  A", "#", "=", "A B=1", "\xff", "A=\x00", "é=ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		kv, ok, err := parseKeyValue(line)
		if err != nil || !ok {
			return
		}
		if kv.key == "" || strings.ContainsAny(kv.key, " \t=\x00") {
			t.Errorf("%q has the name %q", line, kv.key)
		}
		if kv.hasValue && !strings.HasSuffix(line, kv.key+"="+kv.value) {
			t.Errorf("%q became %q=%q", line, kv.key, kv.value)
		}
	})
}
