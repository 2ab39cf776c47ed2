package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"testing"
)

// part is a section of a module that a test makes: type, name, link, info and
// content.
type part struct {
	kind       elf.SectionType
	name       string
	link, info uint32
	content    any // of a fixed size
}

// build is a module of these sections, from number 1 on; the last one is that of
// the names.
func build(t testing.TB, parts ...part) []byte {
	t.Helper()
	names, table, body := []byte{0}, make([]elf.Section64, 1), make([]byte, 64)
	for i, p := range parts {
		s := elf.Section64{Name: uint32(len(names)), Type: uint32(p.kind), Off: uint64(len(body)), Link: p.link, Info: p.info}
		names = append(append(names, p.name...), 0)
		content := p.content
		if i == len(parts)-1 {
			content = names
		}
		if content == nil {
			content = []byte{}
		}
		var err error
		if body, err = binary.Append(body, binary.LittleEndian, content); err != nil {
			t.Fatal(err)
		}
		s.Size = uint64(len(body)) - s.Off
		table = append(table, s)
	}
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Shoff: uint64(len(body)), Shentsize: 64,
		Shnum: uint16(len(table)), Shstrndx: uint16(len(parts)),
	}
	copy(h.Ident[:], elf.ELFMAG)
	b, err := binary.Append(body, binary.LittleEndian, table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := binary.Encode(b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	return b
}

// tracing is a module whose one function begins with a call of __fentry__, the
// operand of which is at offset at.
func tracing(t testing.TB, at uint64, kind elf.R_X86_64, code ...byte) []byte {
	t.Helper()
	return build(t,
		part{kind: elf.SHT_PROGBITS, name: ".text", content: code},
		part{kind: elf.SHT_RELA, name: ".rela.text", link: 3, info: 1, content: elf.Rela64{Off: at, Info: elf.R_INFO(1, uint32(kind))}},
		part{kind: elf.SHT_SYMTAB, name: ".symtab", link: 4, content: []elf.Sym64{{}, {Name: 1}}},
		part{kind: elf.SHT_STRTAB, name: ".strtab", content: []byte("\x00__fentry__\x00")},
		part{kind: elf.SHT_STRTAB, name: ".shstrtab"},
	)
}

func TestStripTracing(t *testing.T) {
	call := []byte{0xe8, 0, 0, 0, 0, 0xc3}
	got, err := strip(tracing(t, 1, elf.R_X86_64_PLT32, call...))
	if err != nil || !bytes.Contains(got, []byte{0x0f, 0x1f, 0x44, 0, 0, 0xc3}) {
		t.Errorf("a call of __fentry__ stays: %x, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"no call":         tracing(t, 1, elf.R_X86_64_PLT32, 0xe9, 0, 0, 0, 0, 0xc3),
		"other kind":      tracing(t, 1, elf.R_X86_64_64, call...),
		"before the code": tracing(t, 0, elf.R_X86_64_PLT32, call...),
		"behind the code": tracing(t, 3, elf.R_X86_64_PLT32, call...),
		"far behind":      tracing(t, 1<<63, elf.R_X86_64_PLT32, call...),
		"around":          tracing(t, 1<<64-2, elf.R_X86_64_PLT32, call...),
	} {
		if got, err := strip(b); !errors.Is(err, errStrip) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A module is left alone where something that stays hangs on what would go.
func TestStripNeeded(t *testing.T) {
	names := part{kind: elf.SHT_STRTAB, name: ".shstrtab"}
	text := part{kind: elf.SHT_PROGBITS, name: ".text", content: []byte{0xc3}}
	for name, b := range map[string][]byte{
		"names of sections":      build(t, text, part{kind: elf.SHT_STRTAB, name: ".comment"}),
		"symbols of relocations": build(t, text, part{kind: elf.SHT_RELA, name: ".rela.text", link: 3, info: 1}, part{kind: elf.SHT_SYMTAB, name: ".debug"}, names),
		"a symbol": build(t, part{kind: elf.SHT_PROGBITS, name: ".BTF"}, text,
			part{kind: elf.SHT_RELA, name: ".rela.text", link: 4, info: 2, content: elf.Rela64{Info: elf.R_INFO(1, 1)}},
			part{kind: elf.SHT_SYMTAB, name: ".symtab", link: 5, content: []elf.Sym64{{}, {Shndx: 1}}}, names),
	} {
		if got, err := strip(b); !errors.Is(err, errStrip) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
