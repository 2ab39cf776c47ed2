package manager

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/network"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/state"
)

// testImage has every config field that a container takes over.
func testImage() *image.Image {
	return &image.Image{
		ID: "sha256:" + strings.Repeat("ab", 32), Platform: "linux/amd64", DiffIDs: []string{"sha256:00"},
		Config: ocispec.Image{Config: ocispec.ImageConfig{
			User: "alice", WorkingDir: "/srv", StopSignal: "SIGQUIT",
			Entrypoint: []string{"/entry"}, Cmd: []string{"serve", "now"},
			Env:     []string{"PATH=/bin", "A=image", "B=image", "HOSTNAME=fixed"},
			Labels:  map[string]string{"l": "image", "m": "image"},
			Volumes: map[string]struct{}{"/data": {}},
		}},
	}
}

func TestArgs(t *testing.T) {
	for _, c := range []struct {
		name string
		o    CreateOptions
		want string // "" for an error
	}{
		{"image", CreateOptions{}, "/entry serve now"},
		{"command", CreateOptions{Command: []string{"x"}}, "/entry x"},
		{"entrypoint drops cmd", CreateOptions{Entrypoint: []string{"/e"}}, "/e"},
		{"both", CreateOptions{Entrypoint: []string{"/e"}, Command: []string{"x", "y"}}, "/e x y"},
		{"reset with command", CreateOptions{Entrypoint: []string{}, Command: []string{"x"}}, "x"},
		{"reset without", CreateOptions{Entrypoint: []string{}}, ""},
	} {
		cfg, err := newConfig(c.o, testImage())
		if got := strings.Join(cfg.Args, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

// TestGiven: what inspect shows is what was said, without defaults.
func TestGiven(t *testing.T) {
	cfg, err := newConfig(CreateOptions{Env: []string{"B=user", "C"}, Command: []string{"x"}}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	var c Container
	describe(&c, &cfg, state.Paths{})
	want := []string{"B=user", "C", "PATH=/bin", "A=image", "HOSTNAME=fixed"}
	if !slices.Equal(c.Env, want) || c.StopSignal != "SIGQUIT" || c.Entrypoint[0] != "/entry" || c.Cmd[0] != "x" || len(c.Command) != 2 {
		t.Errorf("%+v", c)
	}
	// A record of an older version has only what came of it.
	cfg.Given, cfg.Entrypoint = nil, nil
	describe(&c, &cfg, state.Paths{})
	if !slices.Equal(c.Cmd, cfg.Args) || !slices.Equal(c.Env, cfg.Env) || c.StopSignal != "SIGQUIT" {
		t.Errorf("without given: %+v", c)
	}
}

func TestEnvironment(t *testing.T) {
	o := CreateOptions{Env: []string{"A=user", "B", "C=d=e", "UNKNOWN"}, TTY: true}
	cfg, err := newConfig(o, testImage())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=/bin", "HOSTNAME=fixed", "TERM=xterm", "A=user", "C=d=e"}
	if !slices.Equal(cfg.Env, want) {
		t.Errorf("env %q, want %q", cfg.Env, want)
	}
	bare := testImage()
	bare.Config.Config.Env = nil
	cfg, err = newConfig(CreateOptions{Hostname: "box"}, bare)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{defaultPath, "HOSTNAME=box"}; !slices.Equal(cfg.Env, want) {
		t.Errorf("env of a bare image %q, want %q", cfg.Env, want)
	}
}

// An exec is the container's process in other words.
func TestExecRequest(t *testing.T) {
	c, err := newConfig(CreateOptions{User: "alice", Workdir: "/w", GroupAdd: []string{"7"}, TTY: true, Env: []string{"A=1", "B=2"}}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	own := execRequest("e1", &c, ExecOptions{Command: []string{"id"}}, nil)
	p := own.Process
	if own.Container != c.ID || own.User != "alice" || p.Cwd != "/w" || !own.Detach || own.Stdin || p.Terminal || !slices.Equal(own.GroupAdd, c.GroupAdd) {
		t.Errorf("%+v", own)
	}
	if spec := newSpec(&c).Process; !reflect.DeepEqual(p.Capabilities, spec.Capabilities) || !reflect.DeepEqual(p.Rlimits, spec.Rlimits) || p.NoNewPrivileges != spec.NoNewPrivileges {
		t.Errorf("other privileges than the container's: %+v", p)
	}
	if slices.Contains(p.Env, "TERM=xterm") || !slices.Contains(p.Env, "A=1") {
		t.Errorf("env %q", p.Env)
	}
	sizes := make(chan Size, 1)
	sizes <- Size{Cols: 100, Rows: 30}
	o := ExecOptions{Command: []string{"sh"}, User: "0", Workdir: "/", TTY: true, Privileged: true, Env: []string{"A=x", "B"}}
	other := execRequest("e2", &c, o, &Streams{In: strings.NewReader(""), Resize: sizes})
	p = other.Process
	if other.User != "0" || p.Cwd != "/" || other.Detach || !other.Stdin || !p.Terminal || !other.Privileged {
		t.Errorf("%+v", other)
	}
	if !slices.Contains(p.Env, "TERM=xterm") || !slices.Contains(p.Env, "A=x") || slices.Contains(p.Env, "B=2") {
		t.Errorf("env %q", p.Env)
	}
	if p.ConsoleSize == nil || p.ConsoleSize.Width != 100 || p.ConsoleSize.Height != 30 {
		t.Errorf("size %+v", p.ConsoleSize)
	}
	if !slices.Contains(c.Env, "B=2") {
		t.Error("the container's own environment was changed")
	}
}

func TestConfigFromImageAndOptions(t *testing.T) {
	cfg, err := newConfig(CreateOptions{}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.User != "alice" || cfg.Workdir != "/srv" || cfg.StopSignal != 3 || cfg.Hostname != cfg.ID[:12] ||
		cfg.CPUs != 1 || cfg.MemoryMiB != 512 || cfg.StorageBytes != 10<<30 || cfg.VMM != "auto" ||
		!slices.Equal(cfg.Volumes, []string{"/data"}) {
		t.Errorf("defaults: %+v", cfg)
	}
	cfg, err = newConfig(CreateOptions{
		User: "1", Workdir: "/w", StopSignal: "USR1", CPUs: 1.5, MemoryBytes: 100<<20 + 1,
		Labels: map[string]string{"l": "user"}, Name: "nn",
	}, testImage())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.User != "1" || cfg.Workdir != "/w" || cfg.StopSignal != 10 || cfg.CPUs != 2 || cfg.MemoryMiB != 101 ||
		cfg.HostConfig.NanoCPUs != 1_500_000_000 || cfg.Given.StopSignal != "USR1" || cfg.Labels["l"] != "user" || cfg.Labels["m"] != "image" || cfg.Name != "nn" {
		t.Errorf("options: %+v", cfg)
	}
}

func TestRefusedOptions(t *testing.T) {
	empty := testImage()
	empty.DiffIDs = nil
	for name, c := range map[string]struct {
		o   CreateOptions
		img *image.Image
	}{
		"relative workdir":  {CreateOptions{Workdir: "w"}, testImage()},
		"name with slash":   {CreateOptions{Name: "a/b"}, testImage()},
		"little memory":     {CreateOptions{MemoryBytes: 4 << 20}, testImage()},
		"too many cpus":     {CreateOptions{CPUs: 33}, testImage()},
		"negative cpus":     {CreateOptions{CPUs: -1}, testImage()},
		"cpus and a quota":  {CreateOptions{CPUs: 1, HostConfig: HostConfig{CPUQuota: 5000}}, testImage()},
		"unknown signal":    {CreateOptions{StopSignal: "SIGNOPE"}, testImage()},
		"tiny disk":         {CreateOptions{StorageBytes: 4096}, testImage()},
		"image of no layer": {CreateOptions{}, empty},
	} {
		if _, err := newConfig(c.o, c.img); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUserTextStaysData: nothing of a user or an image reaches the VM's own
// configuration, only the messages to the agent.
func TestUserTextStaysData(t *testing.T) {
	const evil = "x init=/bin/sh \"'\n"
	img := testImage()
	img.Config.Config.Labels["e"] = evil
	img.Config.Config.Volumes = map[string]struct{}{evil: {}}
	cfg, err := newConfig(CreateOptions{
		Env: []string{"E=" + evil}, Hostname: evil, User: evil, Command: []string{evil}, Workdir: "/" + evil,
	}, img)
	if err != nil {
		t.Fatal(err)
	}
	disks, root := layout(rootfs.Image{Format: rootfs.EROFS, Disks: []string{"/a", "/b"}}, "/w")
	if len(disks) != 3 || !disks[0].ReadOnly || !disks[1].ReadOnly || disks[2].ReadOnly || disks[2].Path != "/w" {
		t.Errorf("disks %+v", disks)
	}
	if !slices.Equal(root.Devices, []string{"/dev/vda", "/dev/vdb"}) || root.Writable != "/dev/vdc" || root.Format != "erofs" {
		t.Errorf("root %+v", root)
	}
	req, err := startRequest(&cfg, "6.1.0", nil, network.Resolver{})
	if err != nil || req.Spec.Process.Args[1] != evil || req.User != evil {
		t.Errorf("the agent is told %+v, %v", req, err)
	}
}

func TestTmpfs(t *testing.T) {
	m := tmpfs("/run:exec,size=1m")
	if m.Destination != "/run" || strings.Join(m.Options, ",") != "nosuid,nodev,noexec,exec,size=1m" {
		t.Errorf("%+v", m)
	}
}

func TestDetachKeys(t *testing.T) {
	for _, c := range []struct {
		in       []string
		want     string
		complete bool
	}{
		{[]string{"abc"}, "abc", false},
		{[]string{"a\x10\x11b"}, "a", true},
		{[]string{"a\x10", "\x11"}, "a", true},
		{[]string{"\x10", "x"}, "\x10x", false},
		{[]string{"\x10\x10", "\x11"}, "\x10", true},
	} {
		d := detachKeys{want: []byte{0x10, 0x11}}
		var got strings.Builder
		complete := false
		for _, in := range c.in {
			var b []byte
			b, complete = d.filter([]byte(in))
			got.Write(b)
		}
		if got.String() != c.want || complete != c.complete {
			t.Errorf("%q: %q, %v; want %q, %v", c.in, got.String(), complete, c.want, c.complete)
		}
	}
}

func TestDerive(t *testing.T) {
	st := func(p state.Phase) *state.Status { return &state.Status{Phase: p} }
	for _, c := range []struct {
		s       *state.Status
		running bool
		want    State
	}{
		{nil, false, StateCreated},
		{nil, true, StateCreated},
		{st(state.PhaseStarting), true, StateStarting},
		{st(state.PhaseRunning), true, StateRunning},
		{&state.Status{Phase: state.PhaseRunning, Paused: true}, true, StatePaused},
		{&state.Status{Phase: state.PhaseRunning, Paused: true}, false, StateExited},
		{st(state.PhaseRunning), false, StateExited},
		{st(state.PhaseExited), true, StateExited},
		{st(state.PhaseExited), false, StateExited},
	} {
		if got := derive(c.s, c.running); got != c.want {
			t.Errorf("derive(%v, %v) = %s, want %s", c.s, c.running, got, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	now := time.Now()
	all := []Container{
		{ID: "aaaa", Name: "web", State: StateRunning, Labels: map[string]string{"k": "v", "z": ""}, Image: "nginx", Created: now},
		{ID: "bbbb", Name: "db", State: StateExited, ExitCode: 3, Image: "pg:1", Created: now.Add(-time.Hour)},
		{ID: "cccc", Name: "bad", State: StateBroken, Created: now.Add(-2 * time.Hour)},
	}
	for _, c := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "web bad"},
		{ListOptions{All: true}, "web db bad"},
		{ListOptions{Last: 2}, "web db"},
		{ListOptions{Filters: map[string][]string{"status": {"exited"}}}, "db"},
		{ListOptions{Filters: map[string][]string{"exited": {"3"}}}, "db"},
		{ListOptions{Filters: map[string][]string{"exited": {"0"}}}, ""},
		{ListOptions{All: true, Filters: map[string][]string{"label": {"k=v", "z"}}}, "web"},
		{ListOptions{All: true, Filters: map[string][]string{"label": {"k=v", "no"}}}, ""},
		{ListOptions{All: true, Filters: map[string][]string{"name": {"^d", "^w"}}}, "web db"},
		{ListOptions{All: true, Filters: map[string][]string{"name": {"^/web$"}}}, "web"},
		{ListOptions{All: true, Filters: map[string][]string{"ancestor": {"nginx"}}}, "web"},
		{ListOptions{All: true, Filters: map[string][]string{"ancestor": {"nginx:latest"}}}, "web"},
		{ListOptions{All: true, Filters: map[string][]string{"ancestor": {"pg"}}}, ""},
		{ListOptions{All: true, Filters: map[string][]string{"id": {"bb"}}}, "db"},
		{ListOptions{All: true, Filters: map[string][]string{"before": {"web"}}}, "db bad"},
		{ListOptions{All: true, Filters: map[string][]string{"since": {"db"}}}, "web"},
	} {
		got, err := selectContainers(all, c.o)
		var names []string
		for _, x := range got {
			names = append(names, x.Name)
		}
		if s := strings.Join(names, " "); s != c.want || err != nil {
			t.Errorf("%+v: %q, %v; want %q", c.o, s, err, c.want)
		}
	}
	for key, v := range map[string]string{"nope": "x", "status": "flying", "exited": "x", "name": "("} {
		if err := checkFilters(map[string][]string{key: {v}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("filter %s=%s: %v", key, v, err)
		}
	}
}

func TestSignalNames(t *testing.T) {
	for n, want := range map[int]string{9: "SIGKILL", 15: "SIGTERM", 3: "SIGQUIT", 99: "99"} {
		if got := signalName(n); got != want {
			t.Errorf("signalName(%d) = %s, want %s", n, got, want)
		}
	}
}
