package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/micropod/micropod/pkg/rootfs"
)

// writeTrivialInitramfs writes an initramfs with nothing but a program that
// prints ready and ends the VM: the least that a guest can do.
func writeTrivialInitramfs(path string) error {
	program := trivialInit()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(rootfs.WriteInitramfs(f, []rootfs.InitEntry{{
		Name: "init", Mode: 0o755, Size: int64(len(program)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(program)), nil },
	}}), f.Close())
}

// trivialInit is that program, in machine code: a compiler for it need not be
// there, and Go's runtime would be a part of what is measured.
func trivialInit() []byte {
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1
		0x48, 0x8d, 0x35, 31, 0, 0, 0, // lea rsi, [rip+31] (the text)
		0xba, byte(len(ready)), 0, 0, 0, // mov edx, its length
		0x0f, 0x05, // syscall
		0xb8, 169, 0, 0, 0, // mov eax, 169 (reboot)
		0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, LINUX_REBOOT_MAGIC1
		0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, LINUX_REBOOT_MAGIC2
		0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, LINUX_REBOOT_CMD_RESTART
		0x0f, 0x05, // syscall
		0xeb, 0xfe, // jmp to itself
	}
	return elf(append(code, ready...))
}

// elf makes a static program of code: one segment that holds the whole file.
func elf(code []byte) []byte {
	const base, headers = 0x400000, 64 + 56
	size := uint64(headers + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), // executable, x86-64, version
		uint64(base + headers), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), // PT_LOAD, read and execute
		uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000),
	} {
		binary.Write(&b, binary.LittleEndian, v) // a Buffer takes everything
	}
	return append(b.Bytes(), code...)
}
