package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/moby/sys/signal"
	"github.com/spf13/pflag"
)

// createFlags are the flags that `run` and `create` share, as the user typed them.
type createFlags struct {
	name, hostname, domainname, user, workdir, entrypoint string
	env, envFiles, labels, labelFiles, annotations        []string
	groups, tmpfs, storage, attach                        []string
	memory                                                memoryValue
	cpus                                                  cpusValue
	stopSignal, pull, platform, restart                   string
	stopTimeout                                           int
	cidfile, vmm, kernel                                  string
	tty, interactive, rm, init, readOnly, quiet           bool
	hostFlags
	logFlags
	healthFlags
	certFlags
}

// register adds the flags to the command's flag set, which stops at IMAGE: what
// follows belongs to the container.
func (c *createFlags) register(f *pflag.FlagSet) {
	f.SetInterspersed(false)
	// Without a shorthand: -h is the hostname.
	f.Bool("help", false, "Print usage")
	f.Var(newChecked(&c.annotations, "map", unchecked), "annotation", "Add an annotation to the container (key=value)")
	f.VarP(newChecked(&c.attach, "list", checkStream), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.StringVar(&c.cidfile, "cidfile", "", "Write the container ID to the file")
	f.Var(&c.cpus, "cpus", "Number of CPUs; the microVM has the next whole number")
	f.StringVar(&c.domainname, "domainname", "", "Container NIS domain name")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.VarP(newChecked(&c.env, "list", checkEnv), "env", "e", "Set environment variables")
	f.Var(newChecked(&c.envFiles, "list", unchecked), "env-file", "Read in a file of environment variables")
	f.Var(newChecked(&c.groups, "list", unchecked), "group-add", "Add additional groups to join")
	f.StringVarP(&c.hostname, "hostname", "h", "", "Container host name")
	f.BoolVar(&c.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.BoolVarP(&c.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.StringVar(&c.kernel, "kernel", "", "Guest kernel (default: vmlinux in the root directory)")
	f.VarP(newChecked(&c.labels, "list", checkLabel), "label", "l", "Set meta data on a container")
	f.Var(newChecked(&c.labelFiles, "list", unchecked), "label-file", "Read in a line delimited file of labels")
	f.VarP(&c.memory, "memory", "m", "Memory of the microVM (b, k, m, g)")
	f.StringVar(&c.name, "name", "", "Assign a name to the container")
	f.StringVar(&c.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform of the image (os/arch[/variant])")
	f.StringVar(&c.pull, "pull", string(manager.PullMissing), `Pull image before running ("always", "missing", "never")`)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	f.BoolVar(&c.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.BoolVar(&c.rm, "rm", false, "Automatically remove the container when it exits")
	f.StringVar(&c.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.Var(newChecked(&c.storage, "list", unchecked), "storage-opt", "Size of the writable disk (size=10G)")
	f.VarP(newChecked(&c.tmpfs, "list", checkTmpfs), "tmpfs", "", "Mount a tmpfs directory")
	f.BoolVarP(&c.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&c.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVar(&c.vmm, "vmm", "auto", "Virtual machine monitor (auto, firecracker, qemu)")
	f.StringVarP(&c.workdir, "workdir", "w", "", "Working directory inside the container")
	c.hostFlags.register(f)
	c.logFlags.register(f)
	c.healthFlags.register(f)
	c.certFlags.register(f)
}

// options checks what was typed and turns it into the manager's words. f tells
// what was typed at all; args are the image and its command.
func (c *createFlags) options(f *pflag.FlagSet, args []string) (manager.CreateOptions, error) {
	o := manager.CreateOptions{
		Image: args[0], Command: args[1:], User: c.user, GroupAdd: c.groups,
		Hostname: c.hostname, Domainname: c.domainname,
		TTY: c.tty, Stdin: c.interactive, AutoRemove: c.rm, Init: c.init, ReadOnly: c.readOnly,
		Tmpfs: c.tmpfs, CPUs: float64(c.cpus), MemoryBytes: int64(c.memory),
		Platform: c.platform, VMM: c.vmm, Kernel: c.kernel,
	}
	if f.Changed("entrypoint") {
		o.Entrypoint = []string{}
		if c.entrypoint != "" {
			o.Entrypoint = []string{c.entrypoint}
		}
	}
	if f.Changed("stop-timeout") {
		o.StopTimeout = grace(c.stopTimeout)
	}
	steps := []func(*manager.CreateOptions) error{c.checkName, c.checkWorkdir, c.checkPolicies, c.checkStop, c.readEnv, c.readLabels, c.readStorage, c.hostConfig, c.logConfig, c.healthcheck, c.certificates}
	for _, step := range steps {
		if err := step(&o); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (c *createFlags) checkName(o *manager.CreateOptions) error {
	o.Name = strings.TrimPrefix(c.name, "/")
	if o.Name == "" {
		return nil
	}
	return manager.CheckName(o.Name)
}

func (c *createFlags) checkWorkdir(o *manager.CreateOptions) error {
	if c.workdir != "" && !path.IsAbs(c.workdir) {
		return fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", c.workdir)
	}
	o.Workdir = c.workdir
	return nil
}

func (c *createFlags) checkPolicies(o *manager.CreateOptions) error {
	switch p := manager.PullPolicy(c.pull); p {
	case manager.PullAlways, manager.PullMissing, manager.PullNever:
		o.Pull = p
	default:
		return fmt.Errorf(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, c.pull)
	}
	policy, err := parseRestart(c.restart)
	if err != nil {
		return err
	}
	if c.rm && !policy.None() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if !policy.None() || policy.MaximumRetryCount != 0 {
		o.HostConfig.RestartPolicy = policy
	}
	switch c.vmm {
	case "auto", "firecracker", "qemu":
		return nil
	}
	return fmt.Errorf("invalid --vmm %q: must be auto, firecracker or qemu", c.vmm)
}

func (c *createFlags) checkStop(o *manager.CreateOptions) error {
	if c.stopSignal == "" {
		return nil
	}
	if _, err := parseSignal(c.stopSignal); err != nil {
		return err
	}
	o.StopSignal = c.stopSignal
	return nil
}

func (c *createFlags) readEnv(o *manager.CreateOptions) (err error) {
	o.Env, err = readEnv(c.envFiles, c.env)
	return err
}

// readEnv is what --env-file and -e say, in the order in which they count.
func readEnv(files, flags []string) ([]string, error) {
	var env []string
	for _, file := range files {
		lines, err := readKeyValues(file)
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", file, err)
		}
		for _, kv := range lines {
			if kv, ok := envFromFile(kv, os.LookupEnv); ok {
				env = append(env, kv)
			}
		}
	}
	for _, kv := range flags {
		env = append(env, envFromFlag(kv, os.LookupEnv))
	}
	return env, nil
}

func (c *createFlags) readLabels(o *manager.CreateOptions) error {
	o.Labels = map[string]string{}
	for _, file := range c.labelFiles {
		lines, err := readKeyValues(file)
		if err != nil {
			return fmt.Errorf("invalid label file (%s): %w", file, err)
		}
		for _, kv := range lines {
			o.Labels[kv.key] = kv.value
		}
	}
	for _, l := range c.labels {
		k, v, _ := strings.Cut(l, "=")
		o.Labels[k] = v
	}
	o.Annotations = map[string]string{}
	for _, a := range c.annotations {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return fmt.Errorf("invalid annotation '%s': must be key=value", a)
		}
		o.Annotations[k] = v
	}
	return nil
}

func (c *createFlags) readStorage(o *manager.CreateOptions) error {
	for _, opt := range c.storage {
		k, v, ok := strings.Cut(opt, "=")
		if !ok {
			return fmt.Errorf("invalid storage option %q: must be size=BYTES", opt)
		}
		if k != "size" {
			return fmt.Errorf("--storage-opt %s is not supported (only size is)", k)
		}
		n, err := units.RAMInBytes(v)
		if err != nil || n <= 0 {
			return fmt.Errorf("invalid --storage-opt size: '%s'", v)
		}
		o.StorageBytes = n
	}
	return nil
}

// minMemory is the least that any guest kernel starts in; Debian's needs more.
const minMemory = 64 * units.MiB

// memoryValue is a size such as 512m.
type memoryValue int64

func (m *memoryValue) Type() string   { return "bytes" }
func (m *memoryValue) String() string { return strconv.FormatInt(int64(*m), 10) }

func (m *memoryValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	if n != 0 && n < minMemory {
		return fmt.Errorf("a microVM needs at least %s", units.BytesSize(float64(minMemory)))
	}
	*m = memoryValue(n)
	return nil
}

// maxCPUs is what the smallest of the VMMs can give one VM.
const maxCPUs = 32

// cpusValue is a decimal number of CPUs.
type cpusValue float64

func (c *cpusValue) Type() string   { return "decimal" }
func (c *cpusValue) String() string { return strconv.FormatFloat(float64(*c), 'f', -1, 64) }

func (c *cpusValue) Set(s string) error {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) {
		return errors.New("must be a decimal number such as 1.5")
	}
	if n < 0 || n > maxCPUs {
		return fmt.Errorf("must be between 0 (the default) and %d", maxCPUs)
	}
	*c = cpusValue(n)
	return nil
}

// parseSignal reads a name or number as docker does: TERM, sigterm, 15, RTMIN+3.
func parseSignal(s string) (sig int, err error) {
	parsed, err := signal.ParseSignal(s)
	if err != nil || parsed < 1 || parsed > 64 {
		return 0, fmt.Errorf("invalid signal: %s", s)
	}
	return int(parsed), nil
}

func checkStream(s string) (string, error) {
	switch name := strings.ToLower(s); name {
	case "stdin", "stdout", "stderr":
		return name, nil
	}
	return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
}

func checkEnv(s string) (string, error) {
	if s == "" || s[0] == '=' {
		return "", fmt.Errorf("invalid environment variable: %s", s)
	}
	return s, nil
}

func checkLabel(s string) (string, error) {
	if s == "" || s[0] == '=' {
		return "", fmt.Errorf("invalid label '%s': empty name", s)
	}
	return s, nil
}

func checkTmpfs(s string) (string, error) {
	dir, _, _ := strings.Cut(s, ":")
	if !path.IsAbs(dir) || path.Clean(dir) == "/" {
		return "", fmt.Errorf("invalid mount path: '%s' mount path must be absolute, and not the root", dir)
	}
	return s, nil
}
