package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/manager"
)

// agentName is the agent's place in the initramfs, where the kernel looks for PID 1.
const agentName = "init"

// agentWithLibraries is the program at path as the guest's agent. A dynamically
// linked one, as a plain `go build` with cgo makes it, brings its ELF interpreter
// and libraries along, each at the path where this machine's loader finds it.
func agentWithLibraries(path string) ([]manager.AgentFile, error) {
	agent, err := agentFile(agentName, path)
	if err != nil {
		return nil, err
	}
	libraries, err := sharedLibraries(path)
	if err != nil {
		return nil, fmt.Errorf("read the guest agent %s: %w", path, err)
	}
	files := []manager.AgentFile{agent}
	for _, library := range libraries {
		f, err := agentFile(strings.TrimPrefix(library, "/"), library)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func agentFile(name, path string) (manager.AgentFile, error) {
	st, err := statFile(path)
	if err != nil {
		return manager.AgentFile{}, fmt.Errorf("find the guest agent: %w", err)
	}
	return manager.AgentFile{
		Name: name, Mode: 0o755, Size: st.Size, Stamp: stamp(st),
		Open: func() (io.ReadCloser, error) { return os.Open(path) },
	}, nil
}

// statFile looks at a regular file.
func statFile(path string) (st unix.Stat_t, err error) {
	if err := unix.Stat(path, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return st, fmt.Errorf("%s is not a regular file", path)
	}
	return st, nil
}

// stamp is the state of a file. Every write moves the change time, which cp -p
// and touch cannot set.
func stamp(st unix.Stat_t) string {
	return fmt.Sprintf("%d:%d:%d:%d:%d", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// maxLibraries bounds what a broken ELF file can make us read.
const maxLibraries = 64

// sharedLibraries lists the ELF interpreter of the program at path and all the
// libraries that it needs, directly or not. A static program needs none.
func sharedLibraries(path string) ([]string, error) {
	program, err := readELF(path)
	if err != nil {
		return nil, err
	}
	if program.interpreter == "" {
		return nil, nil
	}
	found := []string{program.interpreter}
	queue := program.needed
	seen := map[string]bool{filepath.Base(program.interpreter): true}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		library, err := findLibrary(name, program.machine)
		if err != nil {
			return nil, err
		}
		if found = append(found, library.path); len(found) > maxLibraries {
			return nil, fmt.Errorf("needs more than %d libraries", maxLibraries)
		}
		queue = append(queue, library.needed...)
	}
	slices.Sort(found)
	return found, nil
}

type elfFile struct {
	path        string
	machine     elf.Machine
	interpreter string
	needed      []string
}

func readELF(path string) (*elfFile, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := &elfFile{path: path, machine: f.Machine}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("read the name of its interpreter: %w", err)
		}
		out.interpreter = strings.TrimRight(string(b), "\x00")
	}
	out.needed, err = f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	return out, nil
}

// findLibrary looks where the loader looks without a cache and without
// environment variables.
func findLibrary(name string, machine elf.Machine) (*elfFile, error) {
	if strings.Contains(name, "/") {
		return nil, fmt.Errorf("library %q is named by a path (build with CGO_ENABLED=0)", name)
	}
	for _, dir := range libraryDirs(machine) {
		path := filepath.Join(dir, name)
		library, err := readELF(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && library.machine != machine {
			continue
		}
		if err != nil {
			return nil, err
		}
		return library, nil
	}
	return nil, fmt.Errorf("library %s not found (build with CGO_ENABLED=0)", name)
}

// libraryDirs are the standard directories of Debian's, Fedora's and Arch's loaders.
func libraryDirs(machine elf.Machine) []string {
	triplet := "x86_64-linux-gnu"
	if machine == elf.EM_AARCH64 {
		triplet = "aarch64-linux-gnu"
	}
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}
