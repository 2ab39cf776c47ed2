package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"strings"
)

// maxModinfo bounds the .modinfo section: some kilobytes, mostly aliases.
const maxModinfo = 4 << 20

// moduleInfo is what a module says of itself in its .modinfo section, names in
// canonical form.
type moduleInfo struct {
	depends   []string
	pre, post []string // soft dependencies
	digest    string
}

// parseModinfo reads the ELF of a module.
func parseModinfo(b []byte) (moduleInfo, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return moduleInfo{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := checkMachine(f.Class, f.Data, f.Machine); err != nil {
		return moduleInfo{}, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > maxModinfo {
		return moduleInfo{}, fmt.Errorf("no readable .modinfo section: %w", ErrFormat)
	}
	data := make([]byte, s.FileSize)
	if _, err := io.ReadFull(s.Open(), data); err != nil {
		return moduleInfo{}, fmt.Errorf("section .modinfo: %w: %w", ErrFormat, err)
	}
	return parseModinfoData(data), nil
}

func parseModinfoData(data []byte) moduleInfo {
	var info moduleInfo
	for rec := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(rec), "=")
		switch key {
		case "depends": // "virtio,virtio_ring"
			for d := range strings.SplitSeq(value, ",") {
				if d = strings.TrimSpace(d); d != "" {
					info.depends = append(info.depends, canonical(d))
				}
			}
		case "softdep": // "pre: crc32c post: nothing"
			info.addSoft(value)
		}
	}
	return info
}

func (info *moduleInfo) addSoft(value string) {
	var list *[]string
	for _, w := range strings.Fields(value) {
		switch {
		case w == "pre:":
			list = &info.pre
		case w == "post:":
			list = &info.post
		case list != nil:
			*list = append(*list, canonical(w))
		}
	}
}
