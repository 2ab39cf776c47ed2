package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

const (
	// maxRoots bounds the containers beside the first: those that are on their
	// way out too.
	maxRoots = 64
	// rootTimeout bounds the wait for what uses a root file system to end.
	rootTimeout = 20 * time.Second
)

// root is the root file system of a container that has come into the guest while
// the first one runs. It belongs to a control connection, and ends with it.
type root struct {
	id    string
	dir   string
	place rootPlace
	owner *control

	ready  bool           // all is mounted (under agent.mu)
	ending bool           // nothing may begin in it (under agent.mu)
	users  sync.WaitGroup // its maker, its processes, operations on its files
	gone   chan struct{}  // closed when it is not mounted any more
	err    error          // of that; read it after gone
}

// makeRoot mounts the root file system of one more container.
func (a *agent) makeRoot(c *control, req api.RootRequest) (api.SetupReply, error) {
	if err := api.CheckID(req.ID); err != nil {
		return api.SetupReply{}, invalid("root", "%v", err)
	}
	if err := checkRoot(req.Root); err != nil {
		return api.SetupReply{}, err
	}
	if err := a.mayShare(); err != nil {
		return api.SetupReply{}, internal("root", err)
	}
	if err := a.rootGone(req.ID); err != nil {
		return api.SetupReply{}, err
	}
	r, err := a.reserveRoot(c, req.ID)
	if err != nil {
		return api.SetupReply{}, err
	}
	var p phases
	err = runNamed(&p, r.place.mounts(req.Root))
	a.mu.Lock()
	r.ready = err == nil && !r.ending
	a.mu.Unlock()
	r.users.Done()
	if err != nil {
		return api.SetupReply{}, errors.Join(err, a.endRoot(r))
	}
	return api.SetupReply{Phases: p}, nil
}

// rootGone waits for the end of a root file system that is ending, of the same
// container: it was started again at once.
func (a *agent) rootGone(id string) error {
	a.mu.Lock()
	r := a.roots[id]
	ending := r != nil && r.ending
	a.mu.Unlock()
	if !ending {
		return nil
	}
	select {
	case <-r.gone:
		return nil
	case <-time.After(rootTimeout + stopTimeout):
		return invalid("root", "the last root file system of %s is still in use", id)
	}
}

// reserveRoot takes the place of a root file system. Its maker is its first user.
func (a *agent) reserveRoot(c *control, id string) (*root, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.state != setUp || a.leaving || c.ended:
		return nil, invalid("root", "the guest is not set up, or leaves")
	case a.roots[id] != nil || a.procs[id] != nil:
		return nil, invalid("root", "container %s is here already", id)
	case len(a.roots) >= maxRoots:
		return nil, invalid("root", "%d containers are in this guest: no more are possible", len(a.roots)+1)
	}
	dir := filepath.Join(rootsDir, id)
	r := &root{id: id, dir: dir, place: placeIn(dir), owner: c, gone: make(chan struct{})}
	r.users.Add(1)
	a.roots[id] = r
	return r, nil
}

// enterRootLocked finds the root file system of a container for somebody who uses
// it, until root.leave. The caller holds a.mu.
func (a *agent) enterRootLocked(id string) (*root, error) {
	r := a.roots[id]
	if r == nil || !r.ready || r.ending {
		return nil, notRunning(id)
	}
	r.users.Add(1)
	return r, nil
}

// enterRoot is enterRootLocked, where "" is the first container's: nil.
func (a *agent) enterRoot(id string) (*root, error) {
	if id == "" {
		return nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.enterRootLocked(id)
}

// leave ends the use of a root file system.
func (r *root) leave() {
	if r != nil {
		r.users.Done()
	}
}

// placeOf is where a root file system is; nil is the first one's.
func (r *root) placeOf() rootPlace {
	if r == nil {
		return firstPlace()
	}
	return r.place
}

// releaseRoot ends a root file system at the host's request.
func (a *agent) releaseRoot(req api.ReleaseRequest) error {
	a.mu.Lock()
	r, leaving := a.roots[req.ID], a.leaving
	a.mu.Unlock()
	if leaving { // that ends all of them
		return &api.Error{Code: api.CodeConflict, Phase: "release", Message: "the guest leaves"}
	}
	if r == nil {
		return &api.Error{Code: api.CodeNotFound, Phase: "release", Message: fmt.Sprintf("container %q has no root file system of its own here", api.Clean(req.ID, api.MaxID))}
	}
	if err := a.endRoot(r); err != nil {
		return internal("release", err)
	}
	return nil
}

// controlEnded ends what belongs to a control connection that has ended.
func (a *agent) controlEnded(c *control) {
	a.mu.Lock()
	c.ended = true
	var mine []*root
	for _, r := range a.roots {
		if r.owner == c {
			mine = append(mine, r)
		}
	}
	a.mu.Unlock()
	var all sync.WaitGroup
	for _, r := range mine {
		all.Go(func() {
			if err := a.endRoot(r); err != nil {
				a.log.printf("end the root file system of %s: %v", r.id, err)
			}
		})
	}
	all.Wait()
}

// endRoot kills what runs in a root file system and unmounts it. Whoever calls it
// again waits for the same end.
func (a *agent) endRoot(r *root) error {
	a.mu.Lock()
	first := !r.ending
	r.ending = true
	kill := a.usersOfLocked(r)
	a.mu.Unlock()
	if !first {
		<-r.gone
		return r.err
	}
	kill()
	if !r.unused(rootTimeout) {
		r.err = fmt.Errorf("what uses the files of %s did not end within %s", r.id, rootTimeout)
	}
	r.err = errors.Join(r.err, r.place.unmount(), removeFolder(r.dir), os.RemoveAll(filepath.Join(etcDir, r.id)))
	a.mu.Lock()
	delete(a.roots, r.id)
	a.mu.Unlock()
	close(r.gone)
	return r.err
}

// usersOfLocked collects who uses a root file system, but for processes of Exec,
// which end with their container. The caller holds a.mu.
func (a *agent) usersOfLocked(r *root) (kill func()) {
	var pids []int
	var conns []net.Conn
	for _, p := range a.procs {
		if p.root == r && p.live {
			pids = append(pids, p.pid)
		}
	}
	for f := range a.files {
		if f.root == r {
			pids = append(pids, f.pid)
			conns = append(conns, f.conn) // a host that does not read would hold it up
		}
	}
	return func() {
		for _, pid := range pids {
			_ = a.reaper.signal(pid, unix.SIGKILL)
		}
		for _, c := range conns {
			c.Close()
		}
	}
}

// unused waits until nobody uses the root file system any more.
func (r *root) unused(limit time.Duration) bool { return over(&r.users, limit) }
