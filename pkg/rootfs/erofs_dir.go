package rootfs

import "encoding/binary"

// dirent is an entry of a directory, in the byte order of names.
type dirent struct {
	name string
	node uint32
}

// dirents appends the entries of directory id, with "." and "..", which have
// no special place in the order. The tree is sealed.
func (t *tree) dirents(id uint32, into []dirent) []dirent {
	special := [...]dirent{{".", id}, {"..", t.nodes[id].parent}}
	rest := special[:]
	for c := t.nodes[id].child; c != 0; c = t.nodes[c].next {
		for len(rest) > 0 && rest[0].name < t.nodes[c].name {
			into = append(into, rest[0])
			rest = rest[1:]
		}
		into = append(into, dirent{t.nodes[c].name, c})
	}
	return append(into, rest...)
}

// dirBlock returns how many of the entries fit into one block and the bytes
// they take.
func dirBlock(entries []dirent) (n, size int) {
	for n < len(entries) {
		s := erofsDirentSize + len(entries[n].name)
		if size+s > blockSize {
			break
		}
		size += s
		n++
	}
	return n, size
}

// dirSize is the size of a directory: whole blocks but for the last.
func dirSize(entries []dirent) int64 {
	var size int64
	for {
		n, s := dirBlock(entries)
		if entries = entries[n:]; len(entries) == 0 {
			return size + int64(s)
		}
		size += blockSize
	}
}

// appendDir appends the contents of a directory: in each block first the
// fixed-size parts, then the names they point to.
func (t *tree) appendDir(b []byte, entries []dirent) []byte {
	for {
		start := len(b)
		n, _ := dirBlock(entries)
		off := n * erofsDirentSize
		for _, e := range entries[:n] {
			in := &t.inodes[t.nodes[e.node].inode]
			b = binary.LittleEndian.AppendUint64(b, uint64(in.address)>>erofsNidShift)
			b = binary.LittleEndian.AppendUint16(b, uint16(off))
			b = append(b, erofsType(in.kind), 0)
			off += len(e.name)
		}
		for _, e := range entries[:n] {
			b = append(b, e.name...)
		}
		if entries = entries[n:]; len(entries) == 0 {
			return b
		}
		b = append(b, make([]byte, start+blockSize-len(b))...)
	}
}
