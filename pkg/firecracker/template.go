package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micropod/micropod/pkg/vmm"
	"github.com/micropod/micropod/pkg/vmm/template"
)

// Files of a template: a snapshot of a guest that has booted and waits for its
// host. They are under the same names in the jail or Config.Dir of a VM that goes
// on from it.
const (
	templateMemory = "memory" // sparse; each VM has it mapped privately
	templateState  = "state"  // of the devices and vCPUs
)

// origin is the template that a VM goes on from.
type origin struct {
	store template.Store
	key   string
	dir   string
}

// pattern is the guest that becomes the template of VMs like c. Its disks,
// sockets and console are in a directory of its own. Its network devices lead
// nowhere. Pure.
func pattern(c vmm.Config, dir string) vmm.Config {
	c.Disks, c.NICs = slices.Clone(c.Disks), slices.Clone(c.NICs)
	for i, d := range c.Disks {
		c.Disks[i] = vmm.Disk{Path: filepath.Join(dir, diskName(i)), ReadOnly: d.ReadOnly}
	}
	for i := range c.NICs {
		c.NICs[i].Device = ""
	}
	// A socket has its name in the snapshot.
	c.VsockPath = filepath.Join(dir, filepath.Base(c.VsockPath))
	c.ConsolePath = filepath.Join(dir, "console")
	c.Templates = ""
	return c
}

// planPattern is plan for a pattern, whose devices have addresses that no Config
// may have.
func (m *machine) planPattern(c vmm.Config) ([]Request, error) {
	c.NICs = slices.Clone(c.NICs)
	for i := range c.NICs {
		c.NICs[i].MAC = vmm.TemplateMAC(i)
	}
	return plan(m.seen(c))
}

// templateKey names what a template for m depends on, besides the host: the
// programs, the kernel, and what the guest finds by which names.
func templateKey(m *machine, bootID string) (string, error) {
	c := pattern(m.config, "")
	c.Kernel, c.Initrd = "", ""
	requests, err := m.planPattern(c)
	if err != nil {
		return "", err
	}
	return template.Key(bootID, []string{m.binary, m.config.Kernel, m.config.Initrd}, requests)
}

// findTemplate looks for the template that m can go on from.
func (d *Driver) findTemplate(ctx context.Context, m *machine) error {
	if m.config.Templates == "" || !d.o.Templates {
		return nil
	}
	o := &origin{store: template.Store{Dir: m.config.Templates}}
	m.named = true
	id, err := template.BootID()
	if err == nil {
		o.key, err = templateKey(m, id)
	}
	if err == nil {
		o.dir, err = o.store.Open(o.key, func(dir string) error { return d.makeTemplate(ctx, m.config, dir) })
	}
	if err != nil {
		return fmt.Errorf("%w: %w", template.ErrUnusable, err)
	}
	if m.named = o.dir != ""; m.named {
		m.origin = o
	}
	if m.named && m.jail != nil {
		m.jail.template = o.dir
	}
	return nil
}

// nameFiles gives the files of a VM the names that they have in its template,
// where no jail does.
func (m *machine) nameFiles(context.Context) error {
	if !m.named || m.jail != nil {
		return nil
	}
	for i, d := range m.config.Disks {
		name := filepath.Join(m.config.Dir, diskName(i))
		// The caller's name of its directory is not Firecracker's: see guardDir.
		to := strings.TrimPrefix(d.Path, m.config.Dir+"/")
		if err := errors.Join(remove(name), os.Symlink(to, name)); err != nil {
			return err
		}
		m.removeAtEnd(name)
	}
	if m.origin == nil {
		return nil
	}
	for _, file := range []string{templateMemory, templateState} {
		name := filepath.Join(m.config.Dir, file)
		// Not the path, which another process may remove meanwhile.
		if err := errors.Join(remove(name), os.Link(filepath.Join(m.origin.dir, file), name)); err != nil {
			return fmt.Errorf("%w: %w", template.ErrUnusable, err)
		}
		m.removeAtEnd(name)
	}
	return nil
}

// seenAs is a file of a VM as Firecracker sees it.
func (m *machine) seenAs(name string) string {
	if m.jail != nil {
		return "/" + name
	}
	return inherited(guardDir, name)
}

// load makes the VM out of its template. Its vCPUs do not run yet.
func (m *machine) load(ctx context.Context) error {
	s := SnapshotLoad{
		SnapshotPath: m.seenAs(templateState),
		MemBackend:   MemoryBackend{BackendType: "File", BackendPath: m.seenAs(templateMemory)},
	}
	for i, n := range m.config.NICs {
		if n.Device != "" {
			s.NetworkOverrides = append(s.NetworkOverrides, NetworkOverride{IfaceID: nicName(i), HostDevName: n.Device})
		}
	}
	if err := m.goOn(ctx, LoadSnapshot(s)); err != nil {
		return err
	}
	m.onEnd(func() { m.origin.store.Judge(m.origin.key, m.heard.Load()) })
	// The guest has no driver of a disk yet: it learns their sizes later.
	for i, d := range m.config.Disks {
		if r := rateLimiter(d); r != nil {
			if err := m.goOn(ctx, PatchDrive(DrivePatch{DriveID: diskName(i), RateLimiter: r})); err != nil {
				return err
			}
		}
	}
	return m.openVsock()
}

func (m *machine) resume(ctx context.Context) error { return m.goOn(ctx, PatchVM(Resumed)) }

// goOn sends a request that a VM which boots does without: where Firecracker
// refuses it, the VM may boot still.
func (m *machine) goOn(ctx context.Context, r Request) error {
	if err := m.api.Do(ctx, r); err != nil {
		return fmt.Errorf("%w: %w", template.ErrUnusable, errors.Join(err, m.origin.store.Forget(m.origin.key, err)))
	}
	return nil
}

// FromTemplate reports that the guest has not booted.
func (m *machine) FromTemplate() bool { return m.origin != nil }

// Heard is told that the guest has spoken.
func (m *machine) Heard() { m.heard.Store(true) }
