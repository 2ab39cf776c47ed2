package manager

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/pkg/kernel"
	"github.com/micropod/micropod/pkg/ledger"
	"github.com/micropod/micropod/pkg/state"
	"github.com/micropod/micropod/pkg/supervisor"
	"github.com/micropod/micropod/pkg/vmm"
)

// Finding is something on this host that is left of a container or an image that
// is no more, or that is not as its record says.
type Finding struct {
	Kind    string // process, socket, file, directory, lock, cgroup, record or network
	Subject string // a path, a container or a process
	Problem string
	Remedy  string // what a repair does, or what a person can do
	// Repairable says that a repair needs nobody.
	Repairable bool
	Repaired   bool
	// Error says why a repair did not work, "" if it did or was not tried.
	Error string
}

// checkRounds bounds how often a repair looks again: what is mended can show more
// that is broken, as a container does that is back in the database.
const checkRounds = 4

// Check compares what MicroPod has on this host with its records, and with repair
// mends what it finds. What a living process holds is never touched, so that it
// may run beside any other command. An error says that a part could not be looked
// at; the findings of the others are there all the same.
func (m *Manager) Check(ctx context.Context, repair bool) ([]Finding, error) {
	found, err := m.lookAgain(ctx)
	done := newFindings(found)
	for range checkRounds {
		if !repair || len(found) == 0 || ctx.Err() != nil {
			break
		}
		for i := range found {
			done.repair(ctx, &found[i])
		}
		found, err = m.lookAgain(ctx)
		done.lookedAgain(found)
	}
	return done.list, errors.Join(err, ctx.Err())
}

// nextLooks are the pauses after which a finding must still be there, of more than
// two seconds together: a process that waits for its turn on a busy host is not
// done sooner.
var nextLooks = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond}

// lookAgain returns what is there each time. A process has no lock yet on what it
// has just made, and it may be at the end of its work: of neither tells an event.
func (m *Manager) lookAgain(ctx context.Context) ([]ledger.Finding, error) {
	found, err := m.look(ctx)
	for _, pause := range nextLooks {
		if len(found) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return found, err
		case <-time.After(pause):
		}
		seen := newFindings(found)
		found, err = m.look(ctx)
		found = slices.DeleteFunc(found, func(f ledger.Finding) bool { return seen.of(f) == nil })
	}
	return found, err
}

// look puts together what every package finds of its own, in the order in which
// it is to be repaired.
func (m *Manager) look(ctx context.Context) ([]ledger.Finding, error) {
	var all []ledger.Finding
	var errs []error
	for _, check := range []func() ([]ledger.Finding, error){
		m.checkProcesses,
		m.state.Check,
		m.checkContainers,
		m.state.CheckNetworks,
		m.checkBridges,
		m.checkDrivers,
		m.checkTemplates,
		m.images.Check,
		m.checkDisks,
		m.checkInitramfs,
		func() ([]ledger.Finding, error) {
			return kernel.CheckCache(filepath.Join(m.state.Root(), dirKernels))
		},
	} {
		if ctx.Err() != nil {
			break
		}
		found, err := check()
		all, errs = append(all, found...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// byHand is what a person can do about a record that nobody can read.
const byHand = "remove the container"

// checkContainers looks at the files of the containers that do not run.
func (m *Manager) checkContainers() ([]ledger.Finding, error) {
	vms, err := m.state.List()
	if err != nil {
		return nil, err
	}
	var found []ledger.Finding
	for _, vm := range vms {
		l, err := m.state.Lock(vm.ID)
		if errors.Is(err, state.ErrLocked) || errors.Is(err, state.ErrNotFound) {
			continue // it runs, or is no more
		}
		if errors.Is(err, state.ErrDamaged) {
			found = append(found, ledger.Finding{Kind: ledger.Record, Subject: "container " + vm.Name, Problem: err.Error(), Remedy: byHand})
			continue
		}
		if err != nil {
			return found, err
		}
		found = append(found, m.checkContainer(vm)...)
		l.Unlock()
	}
	return found, nil
}

// addFinding takes one finding of several.
type addFinding func(kind ledger.Kind, subject, problem, remedy string, repair func(context.Context) error)

// checkContainer looks at one. Its lock is held.
func (m *Manager) checkContainer(vm state.VM) []ledger.Finding {
	var found []ledger.Finding
	add := func(kind ledger.Kind, subject, problem, remedy string, repair func(context.Context) error) {
		found = append(found, ledger.Finding{Kind: kind, Subject: subject, Problem: problem, Remedy: remedy, Repair: repair})
	}
	tidy := func(context.Context) error { return m.tidy(vm) }
	m.checkRecords(vm, tidy, add)
	for _, path := range supervisor.Leftovers(m.state.Paths(vm.ID)) {
		add(kindOf(path), path, "its container does not run", "remove it", tidy)
	}
	for _, d := range m.o.Drivers {
		c, ok := d.(vmm.Checker)
		if !ok {
			continue
		}
		left, err := c.Leftovers(vm.ID)
		if err != nil {
			add(ledger.Record, "container "+vm.Name, err.Error(), "look at what "+d.Name()+" needs", nil)
		}
		for _, path := range left {
			add(ledger.Cgroup, path, "its container does not run", "remove it", tidy)
		}
	}
	return found
}

// checkRecords looks at what is recorded of a container.
func (m *Manager) checkRecords(vm state.VM, tidy func(context.Context) error, add addFinding) {
	subject := "container " + vm.Name
	if _, err := m.state.ReadConfig(vm.ID); err != nil {
		add(ledger.Record, subject, err.Error(), byHand, nil)
	}
	st, err := m.state.ReadStatus(vm.ID)
	if err != nil {
		add(ledger.Record, subject, err.Error(), byHand, nil)
	}
	if lost(st) {
		add(ledger.Record, subject, "its supervisor was lost", "record its end", tidy)
	}
	if m.lostService(vm.ID) {
		add(ledger.File, m.state.Paths(vm.ID).Service(), "the supervisor that served its files was lost", "remove it", tidy)
	}
	m.checkHealth(vm, add)
	for _, path := range m.state.TempConfigs(vm.ID) {
		add(ledger.File, path, "a change of its container that did not end", "remove it",
			func(context.Context) error { return m.state.RemoveTempConfigs(vm.ID) })
	}
}

// tidy ends what is left of a container that does not run.
func (m *Manager) tidy(vm state.VM) error {
	l, err := m.state.Lock(vm.ID)
	if errors.Is(err, state.ErrLocked) || errors.Is(err, state.ErrNotFound) {
		return nil // it was started, or removed
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	return m.tidyLocked(vm)
}

func (m *Manager) tidyLocked(vm state.VM) error {
	id := vm.ID
	if err := m.reap(vm); err != nil && !errors.Is(err, state.ErrDamaged) {
		return err
	}
	if m.vanished(id) {
		return nil // --rm
	}
	return errors.Join(m.clean(id, ""), supervisor.RemoveLeftovers(m.state.Paths(id)))
}

// checkDrivers looks where drivers keep what is of no container.
func (m *Manager) checkDrivers() ([]ledger.Finding, error) {
	var found []ledger.Finding
	var errs []error
	for _, d := range m.o.Drivers {
		c, ok := d.(vmm.Checker)
		if !ok {
			continue
		}
		strays, err := c.Strays()
		errs = append(errs, err)
		for _, path := range strays {
			found = append(found, ledger.Finding{
				Kind: ledger.Lock, Subject: path, Problem: "its holder has died", Remedy: "remove it",
				Repair: func(context.Context) error { return c.RemoveStrays() },
			})
		}
	}
	return found, errors.Join(errs...)
}

// checkTemplates looks for what is left of states of guests that drivers keep, all
// of them in one store.
func (m *Manager) checkTemplates() ([]ledger.Finding, error) {
	store := m.templateStore()
	strays, err := store.Strays()
	var found []ledger.Finding
	for _, path := range strays {
		found = append(found, ledger.Finding{
			Kind: ledger.File, Subject: path, Problem: "its writer has died", Remedy: "remove it",
			Repair: func(context.Context) error { return store.RemoveStrays() },
		})
	}
	return found, err
}

// checkDisks looks for disks that no image and no container is made of.
func (m *Manager) checkDisks() ([]ledger.Finding, error) {
	used := m.usedDisks()
	paths, err := m.disks.Unused(used)
	var found []ledger.Finding
	for _, path := range paths {
		found = append(found, ledger.Finding{
			Kind: ledger.Directory, Subject: path, Problem: "a disk of no image and no container", Remedy: "remove it",
			Repair: func(ctx context.Context) error { _, err := m.pruneDisks(ctx); return err },
		})
	}
	return found, err
}

// findings are those of one Check, each once.
type findings struct{ list []Finding }

func newFindings(found []ledger.Finding) *findings {
	f := &findings{}
	f.add(found)
	return f
}

func (f *findings) add(found []ledger.Finding) {
	for _, x := range found {
		if f.of(x) == nil {
			f.list = append(f.list, Finding{
				Kind: string(x.Kind), Subject: x.Subject, Problem: x.Problem, Remedy: x.Remedy, Repairable: x.Repair != nil,
			})
		}
	}
}

func (f *findings) of(x ledger.Finding) *Finding {
	i := slices.IndexFunc(f.list, func(o Finding) bool {
		return o.Kind == string(x.Kind) && o.Subject == x.Subject && o.Problem == x.Problem
	})
	if i < 0 {
		return nil
	}
	return &f.list[i]
}

func (f *findings) repair(ctx context.Context, x *ledger.Finding) {
	if x.Repair == nil {
		return
	}
	mine := f.of(*x)
	mine.Repaired, mine.Error = true, ""
	if err := x.Repair(ctx); err != nil {
		mine.Error = err.Error()
	}
}

// lookedAgain takes in what is there after a repair: what was repaired is what
// has gone.
func (f *findings) lookedAgain(found []ledger.Finding) {
	f.add(found)
	for i := range f.list {
		f.list[i].Repaired = f.list[i].Repairable
	}
	for _, x := range found {
		f.of(x).Repaired = false
	}
	for i := range f.list {
		if f.list[i].Repaired {
			f.list[i].Error = ""
		}
	}
}
