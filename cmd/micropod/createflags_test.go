package main

import (
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
		{"--stop-timeout|0|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(0) }},
		{"--stop-timeout|-1|busybox", func(o *manager.CreateOptions) { o.StopTimeout = seconds(-1) }},
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
		{"--restart|always|x", "--restart is not supported yet"},
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
