package rootfs

import (
	"slices"
	"strings"
)

// seal ends the merge: removed nodes leave the lists, siblings are in byte
// order of their names, links are counted. It returns the number of inodes
// that have a name.
func (t *tree) seal() (live int) {
	t.children = nil
	t.inodes[0].nlink = 2
	live = 1
	var names []uint32
	for stack := []uint32{0}; len(stack) > 0; {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		names = t.sortChildren(dir, names[:0])
		for _, id := range names {
			in := &t.inodes[t.nodes[id].inode]
			if in.nlink == 0 {
				live++
			}
			in.nlink++
			if in.kind == kindDir {
				in.nlink = 2
				t.inodes[t.nodes[dir].inode].nlink++
				stack = append(stack, id)
			}
		}
	}
	return live
}

// sortChildren relinks the living children of dir in order and returns them.
func (t *tree) sortChildren(dir uint32, into []uint32) []uint32 {
	for c := t.nodes[dir].child; c != 0; c = t.nodes[c].next {
		if !t.nodes[c].dead {
			into = append(into, c)
		}
	}
	slices.SortFunc(into, func(a, b uint32) int { return strings.Compare(t.nodes[a].name, t.nodes[b].name) })
	next := uint32(0)
	for _, c := range slices.Backward(into) {
		t.nodes[c].next = next
		next = c
	}
	t.nodes[dir].child = next
	return into
}
