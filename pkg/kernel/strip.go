package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// maxSections bounds the sections of a module; real ones have some fifty.
const maxSections = 1 << 12

// needless are the sections of a module that only a debugger, a tracer or a
// stack trace asks for. The kernel reads them all the same: it checks the types,
// sorts the unwind tables, makes files for each trace event, and looks for the name
// of every traceable function among all symbols.
func needless(name string) bool {
	name = strings.TrimPrefix(name, ".rela")
	return slices.Contains([]string{
		".BTF", ".BTF.ext", ".orc_unwind", ".orc_unwind_ip", ".orc_header", ".comment",
		"_ftrace_events", "_ftrace_eval_map", "__mcount_loc",
	}, name) || strings.HasPrefix(name, ".debug")
}

// errStrip says that a module is not of the kind that strip understands.
var errStrip = errors.New("not stripped")

// object is a module as strip takes it apart.
type object struct {
	file     []byte
	header   elf.Header64
	sections []elf.Section64
	place    []uint32 // of each section in the new file; 0 for those left out
}

// strip leaves the needless sections out of a module, and what is appended to it
// (its signature). Section numbers change, symbol numbers do not.
func strip(module []byte) ([]byte, error) {
	o, err := parseObject(module)
	if err != nil {
		return nil, err
	}
	if err := o.choose(); err != nil {
		return nil, err
	}
	if err := o.dropTracing(); err != nil {
		return nil, err
	}
	return o.write()
}

func parseObject(b []byte) (*object, error) {
	o := &object{file: bytes.Clone(b)}
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &o.header); err != nil {
		return nil, errStrip
	}
	h := o.header
	if string(h.Ident[:4]) != elf.ELFMAG || elf.Type(h.Type) != elf.ET_REL || elf.Machine(h.Machine) != elf.EM_X86_64 || h.Phnum != 0 ||
		h.Shentsize != 64 || h.Shnum > maxSections || h.Shstrndx == 0 || h.Shstrndx >= h.Shnum {
		return nil, errStrip
	}
	table, err := o.part(h.Shoff, uint64(h.Shnum)*64)
	if err != nil {
		return nil, err
	}
	o.sections = make([]elf.Section64, h.Shnum)
	return o, binary.Read(bytes.NewReader(table), binary.LittleEndian, o.sections)
}

// part is a piece of the file.
func (o *object) part(at, size uint64) ([]byte, error) {
	if n := uint64(len(o.file)); at > n || size > n-at {
		return nil, errStrip
	}
	return o.file[at : at+size], nil
}

// content is what a section holds in the file.
func (o *object) content(s elf.Section64) ([]byte, error) {
	if elf.SectionType(s.Type) == elf.SHT_NOBITS || elf.SectionType(s.Type) == elf.SHT_NULL {
		return nil, nil
	}
	return o.part(s.Off, s.Size)
}

// choose decides which sections stay, and that nothing which stays needs one
// that does not.
func (o *object) choose() error {
	names, err := o.content(o.sections[o.header.Shstrndx])
	if err != nil {
		return err
	}
	o.place = make([]uint32, len(o.sections))
	next := uint32(1)
	for i, s := range o.sections[1:] {
		if int(s.Name) >= len(names) {
			return errStrip
		}
		name, _, _ := bytes.Cut(names[s.Name:], []byte{0})
		if needless(string(name)) {
			continue
		}
		o.place[i+1] = next
		next++
	}
	for i, s := range o.sections {
		if o.place[i] == 0 {
			continue
		}
		if err := o.check(s); err != nil {
			return err
		}
	}
	_, err = o.moved(uint32(o.header.Shstrndx))
	return err
}

func (o *object) check(s elf.Section64) error {
	switch elf.SectionType(s.Type) {
	case elf.SHT_GROUP, elf.SHT_SYMTAB_SHNDX, elf.SHT_REL:
		return errStrip // they hold numbers of sections, or are not x86-64's
	case elf.SHT_RELA:
		if _, err := o.moved(s.Info); err != nil {
			return err
		}
		if err := o.checkRelocations(s); err != nil {
			return err
		}
	}
	_, err := o.moved(s.Link)
	return err
}

// moved is the new number of a section; that of none is 0.
func (o *object) moved(number uint32) (uint32, error) {
	if int64(number) >= int64(len(o.place)) || number != 0 && o.place[number] == 0 {
		return 0, errStrip
	}
	return o.place[number], nil
}

// checkRelocations looks whether relocations are against symbols of sections
// that stay.
func (o *object) checkRelocations(s elf.Section64) error {
	if int64(s.Link) >= int64(len(o.sections)) {
		return errStrip
	}
	relocations, err := decode[elf.Rela64](o, s)
	if err != nil {
		return err
	}
	symbols, err := decode[elf.Sym64](o, o.sections[s.Link])
	if err != nil {
		return err
	}
	for _, r := range relocations {
		n := elf.R_SYM64(r.Info)
		if int64(n) >= int64(len(symbols)) || o.lost(symbols[n]) {
			return errStrip
		}
	}
	return nil
}

// dropTracing makes the calls of __fentry__, with which functions begin, what the
// kernel would make of them by the table of their places: a no-op of five bytes.
func (o *object) dropTracing() error {
	for i, s := range o.sections {
		if o.place[i] == 0 || elf.SectionType(s.Type) != elf.SHT_RELA {
			continue
		}
		if err := o.dropCalls(s); err != nil {
			return err
		}
	}
	return nil
}

// dropCalls does it for the code that a section of relocations is about.
func (o *object) dropCalls(s elf.Section64) error {
	relocations, err := decode[elf.Rela64](o, s)
	if err != nil {
		return err
	}
	code, err := o.content(o.sections[s.Info])
	if err != nil {
		return err
	}
	table, err := o.content(s)
	if err != nil {
		return err
	}
	for i, r := range relocations {
		name, err := o.symbolName(s.Link, elf.R_SYM64(r.Info))
		if err != nil {
			return err
		}
		if name != "__fentry__" {
			continue
		}
		const size, call = 5, 0xe8
		at := r.Off - 1
		if kind := elf.R_X86_64(elf.R_TYPE64(r.Info)); kind != elf.R_X86_64_PLT32 && kind != elf.R_X86_64_PC32 ||
			at >= uint64(len(code)) || size > uint64(len(code))-at || code[at] != call {
			return errStrip
		}
		copy(code[at:], []byte{0x0f, 0x1f, 0x44, 0x00, 0x00})
		entry := table[i*binary.Size(r):]
		binary.LittleEndian.PutUint64(entry[8:], elf.R_INFO(0, uint32(elf.R_X86_64_NONE)))
	}
	return nil
}

// symbolName is the name of a symbol of the table in section number in.
func (o *object) symbolName(in, symbol uint32) (string, error) {
	if symbol == 0 {
		return "", nil // that of none
	}
	table := o.sections[in] // checked
	symbols, err := o.content(table)
	if err != nil {
		return "", err
	}
	const entry = 24
	if uint64(symbol)*entry+entry > uint64(len(symbols)) || int64(table.Link) >= int64(len(o.sections)) {
		return "", errStrip
	}
	names, err := o.content(o.sections[table.Link])
	if err != nil {
		return "", err
	}
	at := binary.LittleEndian.Uint32(symbols[symbol*entry:])
	if int64(at) >= int64(len(names)) {
		return "", errStrip
	}
	name, _, _ := bytes.Cut(names[at:], []byte{0})
	return string(name), nil
}

// lost reports whether a symbol is in a section that is left out.
func (o *object) lost(s elf.Sym64) bool {
	return s.Shndx != 0 && int(s.Shndx) < len(o.place) && o.place[s.Shndx] == 0
}

// decode reads a section that is a table.
func decode[T any](o *object, s elf.Section64) ([]T, error) {
	b, err := o.content(s)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(b)/binary.Size(*new(T)))
	return out, binary.Read(bytes.NewReader(b), binary.LittleEndian, out)
}

// write writes what stays, in the old order.
func (o *object) write() ([]byte, error) {
	var out bytes.Buffer
	out.Write(make([]byte, 64)) // the header
	table := make([]elf.Section64, 1)
	for i, s := range o.sections {
		if o.place[i] == 0 {
			continue
		}
		content, err := o.content(s)
		if err == nil && elf.SectionType(s.Type) == elf.SHT_SYMTAB {
			content, err = o.symbols(s)
		}
		if err != nil {
			return nil, err
		}
		pad(&out, s.Addralign)
		s.Off = uint64(out.Len())
		out.Write(content)
		s.Link, _ = o.moved(s.Link) // checked
		if elf.SectionType(s.Type) == elf.SHT_RELA {
			s.Info, _ = o.moved(s.Info)
		}
		table = append(table, s)
	}
	pad(&out, 8)
	h := o.header
	h.Shoff, h.Shnum, h.Shstrndx = uint64(out.Len()), uint16(len(table)), uint16(o.place[h.Shstrndx])
	if err := binary.Write(&out, binary.LittleEndian, table); err != nil {
		return nil, err
	}
	b := out.Bytes()
	_, err := binary.Encode(b, binary.LittleEndian, h)
	return b, err
}

// symbols is the table with new section numbers. A symbol of a section that is
// left out becomes an absolute one: nobody refers to it.
func (o *object) symbols(s elf.Section64) ([]byte, error) {
	symbols, err := decode[elf.Sym64](o, s)
	if err != nil {
		return nil, err
	}
	for i := range symbols {
		if n := symbols[i].Shndx; o.lost(symbols[i]) {
			symbols[i].Shndx, symbols[i].Value = uint16(elf.SHN_ABS), 0
		} else if int(n) < len(o.place) {
			symbols[i].Shndx = uint16(o.place[n])
		}
	}
	return binary.Append(nil, binary.LittleEndian, symbols)
}

// pad goes on to a multiple of align, a power of two or nothing.
func pad(b *bytes.Buffer, align uint64) {
	for align > 1 && align <= 1<<16 && uint64(b.Len())%align != 0 {
		b.WriteByte(0)
	}
}
