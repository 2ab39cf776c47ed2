package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/signal"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/failpoint"
	"github.com/micropod/micropod/pkg/events"
	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/rootfs"
	"github.com/micropod/micropod/pkg/state"
)

// Defaults and bounds of a container's resources.
const (
	defaultMemoryMiB = 512
	minMemoryMiB     = 64
	maxCPUs          = 32
	defaultStorage   = 10 << 30
	minStorage       = 16 << 20
	defaultStop      = 10 * time.Second
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Create makes a container from an image, fetched as the pull policy says. It
// is not started. On an error nothing is left behind but the image.
func (m *Manager) Create(ctx context.Context, o CreateOptions, p Progress) (*Container, error) {
	o, err := m.withCACertificates(o)
	if err == nil {
		o, err = m.share(o)
	}
	if err != nil {
		return nil, err
	}
	img, release, err := m.holdImage(ctx, o, p)
	if err != nil {
		return nil, err
	}
	failpoint.Here(failpoint.CreateHeld)
	defer release() // by then the container's record keeps the layers
	if err := m.checkPlatform(o, img); err != nil {
		return nil, err
	}
	c, err := newConfig(o, img)
	if err == nil {
		err = resolveHealth(&c, o, img)
	}
	if err == nil {
		err = m.resolveNetworks(&c, o.Networks)
	}
	if err != nil {
		return nil, err
	}
	for {
		err = m.create(c)
		if o.Name != "" || !errors.Is(err, state.ErrNameTaken) {
			break
		}
		c.Name = newName() // a name of ours was taken: another one
	}
	if errors.Is(err, state.ErrNameTaken) {
		return nil, nameTaken(c.Name)
	}
	if err == nil {
		err = m.reserve(&c)
	}
	if err != nil {
		return nil, err
	}
	m.tellContainer(events.ActionCreate, state.VM{ID: c.ID, Name: c.Name, Image: c.Image})
	return m.Inspect(ctx, c.ID)
}

// reserve takes the addresses of a new container whose user chose one. If it
// cannot be had there is no container.
func (m *Manager) reserve(c *state.Config) error {
	if !chosen(c) {
		return nil
	}
	_, err := m.takeLeases(c, nil)
	if err == nil {
		return nil
	}
	lock, gone := m.state.Lock(c.ID)
	if gone != nil {
		return err // somebody has it by now, or it is no more
	}
	defer lock.Unlock()
	return errors.Join(err, m.state.Remove(c.ID))
}

func nameTaken(name string) error {
	return fmt.Errorf("%w: the container name %q is already in use: remove that container or choose another name", ErrConflict, name)
}

func (m *Manager) create(c state.Config) error {
	return m.state.Create(c, func(p state.Paths) error {
		err := rootfs.CreateWritable(p.Disk(), c.StorageBytes, !c.AutoRemove)
		failpoint.Here(failpoint.CreateDisk)
		return err
	})
}

// holdImage gets the image that a container is to be made of, and keeps it from
// rmi until release is called.
func (m *Manager) holdImage(ctx context.Context, o CreateOptions, p Progress) (img *image.Image, release func(), err error) {
	// A layout or an archive may have changed; to look is cheap.
	local := image.IsLocal(o.Image)
	if local && o.Pull != PullAlways && p != nil {
		p = onlyNew{p}
	}
	look := o.Pull == PullAlways || local && o.Pull != PullNever
	if !look {
		img, release, err = m.held(o)
		if img != nil || err != nil {
			return img, release, err
		}
		if o.Pull == PullNever {
			return nil, nil, fmt.Errorf("%w: image %s is not here, and --pull=never forbids to fetch it", ErrNotFound, o.Image)
		}
	}
	img, err = m.pull(ctx, o.Image, o.Platform, p)
	if err == nil {
		img, release, err = m.images.Hold(img.ID)
	}
	return img, release, imageError(err)
}

// onlyNew passes on what is said of layers that are fetched: a user who did not
// ask for a pull need not know that nothing had changed.
type onlyNew struct{ Progress }

func (o onlyNew) Layer(id, event string, current, total int64) {
	if event != "exists" {
		o.Progress.Layer(id, event, current, total)
	}
}

// held holds the stored image, nil if there is none that suits. One that has
// lost parts is as good as none: a pull mends it.
func (m *Manager) held(o CreateOptions) (*image.Image, func(), error) {
	img, release, err := m.images.Hold(o.Image)
	if errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrDamaged) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, imageError(err)
	}
	fits := true
	if o.Platform != "" {
		fits, err = img.Fits(o.Platform)
	}
	if err != nil || !fits {
		release()
		return nil, nil, imageError(err)
	}
	return img, release, nil
}

// checkPlatform refuses an image of another system, and warns of another CPU's
// that nobody asked for: its programs will most likely not run.
func (m *Manager) checkPlatform(o CreateOptions, img *image.Image) error {
	if system := img.Config.OS; system != "" && system != "linux" {
		return fmt.Errorf("%w: image %s is for %s: a microVM runs Linux", ErrInvalid, o.Image, system)
	}
	fits, err := img.Fits("")
	if err == nil && !fits && o.Platform == "" {
		m.o.Warn(fmt.Sprintf("image %s is for %s: its programs do not run on %s", o.Image, img.Platform, runtime.GOARCH))
	}
	return err
}

// newConfig resolves an image and the user's options into a container. Pure
// but for the id, the name and the time.
func newConfig(o CreateOptions, img *image.Image) (state.Config, error) {
	ic := img.Config.Config
	c := state.Config{
		ID: state.NewID(), Name: o.Name, Created: time.Now().UTC(),
		Image: o.Image, ImageID: img.ID, Platform: img.Platform, DiffIDs: img.DiffIDs,
		User: either(o.User, ic.User), GroupAdd: o.GroupAdd,
		Workdir: either(o.Workdir, ic.WorkingDir), Domainname: o.Domainname,
		Labels: merged(ic.Labels, o.Labels), Annotations: o.Annotations,
		Volumes: slices.Sorted(maps.Keys(ic.Volumes)),
		TTY:     o.TTY, Stdin: o.Stdin, StdinStays: o.StdinStays, AutoRemove: o.AutoRemove, Init: o.Init,
		ReadOnly: o.ReadOnly, Tmpfs: o.Tmpfs, StopTimeout: o.StopTimeout,
		HostConfig: o.HostConfig,
		VMM:        either(o.VMM, vmmAuto), Kernel: o.Kernel,
	}
	c.Hostname = either(o.Hostname, c.ID[:12])
	if c.Name == "" {
		c.Name = newName()
	} else if err := CheckName(c.Name); err != nil {
		return c, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if o.Workdir != "" && !path.IsAbs(o.Workdir) {
		return c, fmt.Errorf("%w: the working directory %q is not an absolute path", ErrInvalid, o.Workdir)
	}
	if len(c.DiffIDs) == 0 {
		return c, fmt.Errorf("%w: image %s has no layers: there is nothing to run in it", ErrInvalid, o.Image)
	}
	var err error
	if c.ExposedPorts, err = exposedPorts(ic.ExposedPorts, o.ExposedPorts); err != nil {
		return c, fmt.Errorf("%w: image %s exposes an %w", ErrInvalid, o.Image, err)
	}
	if c.Entrypoint, c.Args, err = args(o, ic.Entrypoint, ic.Cmd); err != nil {
		return c, err
	}
	c.Given = given(o, ic)
	c.Env = changeEnvironment(startVariables(&c), slices.Concat(ic.Env, o.Env))
	if c.StopSignal, err = stopSignal(c.Given.StopSignal); err != nil {
		return c, err
	}
	c.HostConfig.NanoCPUs = nanoCPUs(o.CPUs)
	if err := checkHostConfig(&c); err != nil {
		return c, err
	}
	if err := resources(&c, o); err != nil {
		return c, err
	}
	return c, checkShares(&c)
}

// args is the entrypoint, and joined with the command what is executed, as docker
// does it: an entrypoint of the user's drops the image's command.
func args(o CreateOptions, entrypoint, cmd []string) (_, all []string, err error) {
	if o.Entrypoint != nil {
		entrypoint, cmd = o.Entrypoint, nil
	}
	if len(o.Command) > 0 {
		cmd = o.Command
	}
	all = slices.Concat(entrypoint, cmd)
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%w: no command specified, and the image has none", ErrInvalid)
	}
	return entrypoint, all, nil
}

// given joins what the user and the image said, in docker's order.
func given(o CreateOptions, image ocispec.ImageConfig) *state.Given {
	g := &state.Given{Env: slices.Clone(o.Env), StopSignal: either(o.StopSignal, image.StopSignal)}
	name := func(kv string) string { n, _, _ := strings.Cut(kv, "="); return n }
	for _, kv := range image.Env {
		if !slices.ContainsFunc(o.Env, func(own string) bool { return name(own) == name(kv) }) {
			g.Env = append(g.Env, kv)
		}
	}
	return g
}

// startVariables are set unless the image or the user say otherwise; a name
// alone of theirs removes one.
func startVariables(c *state.Config) []string {
	env := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	if c.TTY {
		env = append(env, defaultTerm)
	}
	return append(env, caVariables(c.HostConfig)...)
}

// changeEnvironment makes changes to env: "K=V" sets, "K" removes.
func changeEnvironment(env, changes []string) []string {
	for _, kv := range changes {
		name, _, set := strings.Cut(kv, "=")
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		switch {
		case i >= 0 && set:
			env[i] = kv
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		case set:
			env = append(env, kv)
		}
	}
	return env
}

func stopSignal(name string) (int, error) {
	if name == "" {
		return int(signal.SignalMap["TERM"]), nil
	}
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return 0, fmt.Errorf("%w: stop signal: %w", ErrInvalid, err)
	}
	return int(sig), nil
}

func resources(c *state.Config, o CreateOptions) error {
	// Of a container in another one's VM these are limits, and 0 is none.
	c.CPUs, c.MemoryMiB = 0, 0
	if !shares(c.HostConfig) {
		c.CPUs, c.MemoryMiB = 1, defaultMemoryMiB
	}
	c.CPUs = max(c.CPUs, int(math.Ceil(max(o.CPUs, quotaCPUs(o.HostConfig)))))
	if o.CPUs < 0 || c.CPUs > maxCPUs {
		return fmt.Errorf("%w: %g CPUs: a VM has 1 to %d", ErrInvalid, o.CPUs, maxCPUs)
	}
	if o.MemoryBytes != 0 {
		c.MemoryMiB = int((o.MemoryBytes + 1<<20 - 1) >> 20)
	}
	if c.MemoryMiB < minMemoryMiB && c.MemoryMiB != 0 {
		return fmt.Errorf("%w: %d MiB of memory: a VM needs at least %d MiB", ErrInvalid, c.MemoryMiB, minMemoryMiB)
	}
	c.StorageBytes = o.StorageBytes
	if c.StorageBytes == 0 {
		c.StorageBytes = defaultStorage
	}
	if c.StorageBytes < minStorage {
		return fmt.Errorf("%w: a writable disk of %d bytes: it needs at least %d", ErrInvalid, c.StorageBytes, minStorage)
	}
	return nil
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// merged is a copy of base with more on top.
func merged(base, more map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, base)
	maps.Copy(all, more)
	return all
}
