package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/failpoint"
)

// Removed says what Remove did.
type Removed struct {
	// ID is the image that ref named.
	ID string
	// Untagged are the names and repository digests that point nowhere now.
	Untagged []string
	// Deleted are the ids of images that are gone.
	Deleted []string
	// Freed is what that gave back, in bytes.
	Freed int64
}

// Remove takes a name away from an image, and deletes the image with its last
// name, as docker rmi does. ref may also be an id: an image with several names
// then needs force.
//
// inUse names what still uses an image. Such an image is never deleted: without
// force that is an error that wraps ErrConflict, with force the image loses its
// names and stays. Layers that no image needs any more are freed.
func (s *Store) Remove(ctx context.Context, ref string, inUse func(imageID string) []string, force bool) (Removed, error) {
	// Until the layers are gone: nobody shall find what no image needs.
	l, err := s.lock()
	if err != nil {
		return Removed{}, err
	}
	defer l.Unlock()
	var done Removed
	remove := func(x *index) error {
		r, err := x.find(ref)
		if err != nil {
			return err
		}
		done.ID = r.ID
		name := r.nameFor(ref)
		if name != "" && r.pointers(name) > 0 {
			done.Untagged = r.drop(name)
			return nil
		}
		if name == "" && len(r.Names) > 1 && !force {
			return fmt.Errorf("%w: image %s has several names (%s): remove them one by one, or force",
				ErrConflict, shortID(r.ID), strings.Join(r.Names, ", "))
		}
		return s.removeLast(x, r, inUse, force, &done)
	}
	err = s.updateLocked(remove)
	if errors.Is(err, unix.ENOSPC) {
		// The disk is full: what is to go makes room for the index without it.
		err = s.updateLocked(func(x *index) error {
			done = Removed{}
			if err := remove(x); err != nil {
				return err
			}
			_, err := s.free(ctx, x)
			return err
		})
	}
	if err != nil {
		return Removed{}, fmt.Errorf("remove image %s: %w", ref, err)
	}
	failpoint.Here(failpoint.RemoveImage)
	if len(done.Deleted) > 0 {
		if done.Freed, err = s.collectLocked(ctx); err != nil {
			s.o.Log.Warn("image removed, its layers not yet", "image", ref, "cause", err)
		}
	}
	return done, nil
}

// removeLast deletes an image, or only its names when it is in use.
func (s *Store) removeLast(x *index, r *record, inUse func(string) []string, force bool, done *Removed) error {
	live, err := s.liveLeases()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(live, func(l leased) bool { return l.Image == r.ID }) {
		return fmt.Errorf("%w: image is being pulled or started just now", ErrConflict)
	}
	var users []string
	if inUse != nil {
		users = inUse(r.ID)
	}
	if len(users) > 0 && (!force || len(r.Names) == 0) {
		return fmt.Errorf("%w: image %s is in use by %s", ErrConflict, r.label(), strings.Join(users, ", "))
	}
	done.Untagged = slices.Concat(r.Names, r.Digests)
	if len(users) > 0 {
		r.Names, r.Digests = nil, nil
		return nil
	}
	x.records = slices.DeleteFunc(x.records, func(o *record) bool { return o == r })
	done.Deleted = []string{r.ID}
	return nil
}

// nameFor is the name or digest of r that ref spells, "" when ref is an id.
func (r *record) nameFor(ref string) string {
	if id := strings.TrimPrefix(ref, digestPrefix); len(id) == 64 && isHex(id) {
		return ""
	}
	t, err := parseTarget(ref)
	if err != nil {
		return ""
	}
	if n := t.String(); slices.Contains(r.Names, n) || slices.Contains(r.Digests, n) {
		return n
	}
	return ""
}

// pointers counts what else keeps the image when name goes: other names, and
// digests of other repositories.
func (r *record) pointers(name string) int {
	n := 0
	for _, o := range r.Names {
		if o != name {
			n++
		}
	}
	for _, d := range r.Digests {
		if d != name && !sameRepository(d, name) {
			n++
		}
	}
	return n
}

func sameRepository(a, b string) bool {
	x, err1 := parseTarget(a)
	y, err2 := parseTarget(b)
	return err1 == nil && err2 == nil && x.kind == y.kind && x.repository() == y.repository()
}

// drop takes name away, and with a repository's last tag the digests under
// which the image was pulled from there: nobody sees them, yet they would keep
// the image.
func (r *record) drop(name string) (untagged []string) {
	same := func(n string) bool { return sameRepository(n, name) }
	gone := func(n string) bool { return n == name }
	if i := slices.Index(r.Names, name); i >= 0 {
		r.Names = slices.Delete(r.Names, i, i+1)
		if !slices.ContainsFunc(r.Names, same) {
			gone = same
		}
	}
	untagged = []string{name}
	for _, d := range r.Digests {
		if d != name && gone(d) {
			untagged = append(untagged, d)
		}
	}
	r.Digests = slices.DeleteFunc(r.Digests, gone)
	return untagged
}

// Tag gives the image src one more name, dst, taking it from the image that
// had it.
func (s *Store) Tag(src, dst string) error {
	t, err := parseTag(dst)
	if err != nil {
		return fmt.Errorf("tag image %s: %w", src, err)
	}
	err = s.update(func(x *index) error {
		r, err := x.find(src)
		if err == nil {
			x.setName(r, t.String())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("tag image %s: %w", src, err)
	}
	return nil
}

// GC frees what no image needs: layers, documents and what crashes left. It
// never takes a layer of an image that is being pulled or held. While a record
// is damaged it frees nothing, because nobody can tell what that image needs.
func (s *Store) GC(ctx context.Context) (freed int64, err error) {
	l, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer l.Unlock()
	return s.collectLocked(ctx)
}

// collectLocked is GC under the store's lock.
func (s *Store) collectLocked(ctx context.Context) (freed int64, err error) {
	x, err := s.readIndex()
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	return s.free(ctx, x)
}

// free is GC for the images of x. The store's lock is held.
func (s *Store) free(ctx context.Context, x *index) (freed int64, err error) {
	if errs := x.errs(); len(errs) > 0 {
		return 0, fmt.Errorf("collect garbage: %w", errors.Join(errs...))
	}
	live, err := s.liveLeases()
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	keep, err := s.needed(x, live)
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	freed = s.sweep(keep) + s.sweepPartials()
	n, err := s.layers.Prune(ctx, func(diffID string) bool { return keep[diffID] })
	if err != nil {
		return freed + n, fmt.Errorf("collect garbage: %w", err)
	}
	return freed + n, nil
}

// needed are the digests of layers and documents that an image or a lease holds.
func (s *Store) needed(x *index, live []leased) (map[string]bool, error) {
	keep := map[string]bool{}
	for _, l := range live {
		for _, d := range l.Layers {
			keep[d] = true
		}
	}
	for _, r := range x.records {
		raw, err := s.content(r.ID)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.label(), err)
		}
		_, diffIDs, err := decodeConfig(raw)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.label(), err)
		}
		for _, d := range slices.Concat([]string{r.ID}, r.manifests(), diffIDs) {
			keep[d] = true
		}
	}
	return keep, nil
}

// sweep removes documents that nothing keeps and temporary files. The store's
// lock is held, so whatever is half written was left by the dead.
func (s *Store) sweep(keep map[string]bool) (freed int64) {
	for _, dir := range []string{dirContent, dirTmp} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil {
			s.o.Log.Warn("sweep image store", "cause", err)
			continue
		}
		for _, e := range entries {
			if dir == dirContent && keep[digestPrefix+e.Name()] {
				continue
			}
			path := filepath.Join(s.dir, dir, e.Name())
			if st, err := e.Info(); err == nil && os.Remove(path) == nil {
				freed += st.Size()
			}
		}
	}
	return freed
}
