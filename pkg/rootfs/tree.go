package rootfs

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// tree is the file system that the layers of an image add up to. Layers are
// applied bottom-up, each entry as an extractor in a chroot of the lower
// layers would: symlinks in the middle of a path are followed inside the root,
// missing parents are made. Only names and attributes are in memory.
type tree struct {
	limits   *Limits
	nodes    []node  // nodes[0] is the root
	inodes   []inode // inodes[0] is the root
	children map[childKey]uint32
	layer    uint16 // being applied, from 1

	steps    int    // names looked up so far
	lastPath string // directory of the entry before, and its node
	lastDir  uint32
}

type childKey struct {
	parent uint32
	name   string
}

// node is a name in a directory. Links between nodes are indexes; 0 is none,
// as the root is nobody's child or sibling.
type node struct {
	name        string
	parent      uint32
	child, next uint32 // first child, next sibling
	inode       uint32
	touched     uint16 // layer that last made the node or something below it
	explicit    uint16 // layer that last had an entry for it
	hidden      uint16 // layer that last hid what is below
	depth       uint16
	dead        bool // removed; still in the list of its siblings
}

// inode is a file with its attributes.
type inode struct {
	kind    kind
	place   place
	layer   uint16 // that has the contents
	mode    uint16
	uid     uint32
	gid     uint32
	nsec    uint32
	nlink   uint32 // set by seal; 0 when no name is left
	dev     uint32 // of a device, as Linux encodes it on disk
	node    uint32 // of a directory
	sec     int64
	size    int64
	offset  int64
	text    string // symlink target
	xattrs  string
	address int64 // in the EROFS image
}

// maxFollow is how many symlinks a path may lead through, as in Linux.
const maxFollow = 40

// maxSteps bounds the names looked up for one image. Honest images need a few
// per entry; a chain of symlinks with long targets makes it 80,000.
const maxSteps = 100_000_000

const implicitMode = 0o755

func newTree(l *Limits, entries int) *tree {
	t := &tree{limits: l, children: make(map[childKey]uint32, entries)}
	room := entries + entries/8 + 64 // for implicit parents: growing costs a copy of all
	t.nodes = append(make([]node, 0, room), node{})
	t.inodes = append(make([]inode, 0, room), inode{kind: kindDir, mode: implicitMode})
	return t
}

// apply puts one layer on top.
func (t *tree) apply(ctx context.Context, x *index) error {
	t.layer++
	t.lastPath, t.lastDir = "", 0
	return x.each(t.limits, func(e *entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.add(e); err != nil {
			return fmt.Errorf("entry %.300q: %w", e.path, err)
		}
		return nil
	})
}

func (t *tree) add(e *entry) error {
	if e.path == "" {
		if e.kind == kindOpaque {
			t.hide(0)
			return nil
		}
		// The root is root's and 0755 whatever the layer says, as in docker.
		t.inodes[0].sec, t.inodes[0].nsec = e.sec, e.nsec
		return nil
	}
	if e.kind == kindOpaque {
		dir, err := t.dir(e.path, true)
		if err == nil {
			t.hide(dir)
		}
		return err
	}
	dirPath, name := path.Split(e.path)
	dir, err := t.dir(strings.TrimSuffix(dirPath, "/"), true)
	if err != nil {
		return err
	}
	switch {
	case e.kind == kindWhiteout:
		t.whiteout(dir, name)
		return nil
	case e.kind == kindLink:
		return t.link(dir, name, e.target)
	case e.kind == kindChar && e.major == 0 && e.minor == 0:
		// Overlayfs takes device 0:0 for a whiteout, so that nothing is seen
		// there whatever we store: nothing is stored.
		t.remove(dir, name)
		return nil
	}
	return t.put(dir, name, t.newInode(e), true)
}

func (t *tree) newInode(e *entry) uint32 {
	t.inodes = append(t.inodes, inode{
		kind: e.kind, place: e.place, layer: t.layer, mode: e.mode, uid: e.uid, gid: e.gid,
		sec: e.sec, nsec: e.nsec, size: e.size, offset: e.offset, text: e.target, xattrs: e.xattrs,
		dev: e.minor&0xff | e.major<<8 | e.minor&^0xff<<12,
	})
	return uint32(len(t.inodes) - 1)
}

// link makes name a further name of the file at target, in whatever layer.
func (t *tree) link(dir uint32, name, target string) error {
	targetDir, targetName := path.Split(target)
	from, err := t.dir(strings.TrimSuffix(targetDir, "/"), false)
	if err != nil {
		return fmt.Errorf("%w: hard link to %.300q: %w", ErrLayer, target, err)
	}
	id, ok := t.children[childKey{from, targetName}]
	if !ok {
		return fmt.Errorf("%w: hard link to %.300q, which does not exist", ErrLayer, target)
	}
	i := t.nodes[id].inode
	if t.inodes[i].kind == kindDir {
		return fmt.Errorf("%w: hard link to directory %.300q", ErrLayer, target)
	}
	return t.put(dir, name, i, true)
}

// put gives inode i the name in dir. A directory over a directory keeps the
// children; anything else replaces what was there.
func (t *tree) put(dir uint32, name string, i uint32, explicit bool) error {
	id, ok := t.children[childKey{dir, name}]
	if ok && t.inodes[t.nodes[id].inode].kind == kindDir && t.inodes[i].kind != kindDir {
		t.remove(dir, name)
		ok = false
	}
	if !ok {
		if len(t.nodes) > t.limits.Entries {
			return fmt.Errorf("%w: more than %d files in the image", ErrLimit, t.limits.Entries)
		}
		depth := t.nodes[dir].depth + 1
		if int(depth) > t.limits.Depth {
			return fmt.Errorf("%w: directories nested more than %d deep", ErrLimit, t.limits.Depth)
		}
		id = uint32(len(t.nodes))
		t.nodes = append(t.nodes, node{name: name, parent: dir, next: t.nodes[dir].child, depth: depth})
		t.nodes[dir].child = id
		t.children[childKey{dir, name}] = id
	} else if t.inodes[t.nodes[id].inode].kind == kindSymlink {
		t.forget() // the cached path may lead through it
	}
	n := &t.nodes[id]
	n.inode = i
	if explicit {
		n.explicit = t.layer
	}
	if t.inodes[i].kind == kindDir {
		t.inodes[i].node = id
	}
	t.touch(id)
	return nil
}

// touch marks a node and the directories above it as of this layer.
func (t *tree) touch(id uint32) {
	for ; t.nodes[id].touched != t.layer; id = t.nodes[id].parent {
		t.nodes[id].touched = t.layer
	}
}

func (t *tree) forget() { t.lastPath, t.lastDir = "", 0 }

// remove takes a name, and what is below it, out of dir.
func (t *tree) remove(dir uint32, name string) {
	id, ok := t.children[childKey{dir, name}]
	if !ok {
		return
	}
	delete(t.children, childKey{dir, name})
	t.nodes[id].dead = true
	t.forget()
}

// whiteout removes what lower layers have at name. What this layer has there,
// before or after the whiteout in its tar, stays.
func (t *tree) whiteout(dir uint32, name string) {
	id, ok := t.children[childKey{dir, name}]
	if !ok {
		return
	}
	if t.nodes[id].touched != t.layer {
		t.remove(dir, name)
		return
	}
	n := t.nodes[id]
	if t.inodes[n.inode].kind != kindDir {
		return
	}
	t.hide(id)
	if n.explicit != t.layer {
		// Only its being a parent in this layer is left of it.
		t.inodes[n.inode] = inode{kind: kindDir, layer: t.layer, mode: implicitMode, node: id}
	}
}

// hide removes all below directory id that is not of this layer. Once per layer
// is enough: what comes after is of this layer, and a layer of nothing but
// opaque entries must not cost their number times that of the files.
func (t *tree) hide(id uint32) {
	if t.nodes[id].hidden == t.layer {
		return
	}
	t.nodes[id].hidden = t.layer
	prev := &t.nodes[id].child
	for c := *prev; c != 0; c = t.nodes[c].next {
		if !t.nodes[c].dead {
			t.whiteout(id, t.nodes[c].name)
		}
		if t.nodes[c].dead {
			*prev = t.nodes[c].next
		} else {
			prev = &t.nodes[c].next
		}
	}
}

// dir returns the directory at p, which is clean. With create, what is missing
// is made; symlinks are followed, inside the root, in either case.
func (t *tree) dir(p string, create bool) (uint32, error) {
	if p == "" || p == t.lastPath {
		if p == "" {
			return 0, nil
		}
		return t.lastDir, nil
	}
	at, follows := uint32(0), 0
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = t.nodes[at].parent
			continue
		}
		if t.steps++; t.steps > maxSteps {
			return 0, fmt.Errorf("%w: paths through too many symlinks", ErrLimit)
		}
		id, ok := t.children[childKey{at, name}]
		if !ok {
			if !create {
				return 0, fmt.Errorf("%.300q does not exist", p)
			}
			if len(name) > maxName {
				return 0, badEntry(p, "symlink to a name of %d bytes", len(name))
			}
			if err := t.put(at, name, t.implicit(), false); err != nil {
				return 0, err
			}
			id = t.children[childKey{at, name}]
		}
		switch in := &t.inodes[t.nodes[id].inode]; in.kind {
		case kindDir:
			at = id
		case kindSymlink:
			if follows++; follows > maxFollow {
				return 0, fmt.Errorf("%w: too many symlinks in %.300q", ErrLayer, p)
			}
			if in.text[0] == '/' {
				at = 0
			}
			rest = in.text + "/" + rest
		default:
			return 0, fmt.Errorf("%w: %.300q is not a directory", ErrLayer, name)
		}
	}
	t.lastPath, t.lastDir = p, at
	return at, nil
}

// implicit returns the inode of a parent that no entry describes.
func (t *tree) implicit() uint32 {
	t.inodes = append(t.inodes, inode{kind: kindDir, layer: t.layer, mode: implicitMode})
	return uint32(len(t.inodes) - 1)
}
