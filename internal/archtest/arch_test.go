// Package archtest holds the drawing of the house: which package may import
// which other one of ours, and why. A new arrow is a decision, made here.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/micropod/micropod/"

// room is what one package may import of ours, and the reason.
type room struct {
	may []string
	why string
}

func house() map[string]room {
	return map[string]room{
		"pkg/ledger":       {nil, "one type, for those who own something on the host"},
		"pkg/state":        {[]string{"pkg/ledger"}, "records and locks are below everything: they know nothing of ours"},
		"pkg/events":       {[]string{"pkg/state"}, "the journal: only the watching of files is shared"},
		"pkg/health":       {[]string{"pkg/state"}, "a state machine over records"},
		"pkg/logfile":      {nil, "a file format"},
		"pkg/logdriver":    {[]string{"pkg/logfile"}, "where output goes, whoever it comes from"},
		"pkg/vmm":          {nil, "the contract between us and a VMM must not depend on either side"},
		"pkg/vmm/template": {nil, "keeps directories; what is in them is their drivers' business"},
		"pkg/rootfs":       {[]string{"pkg/ledger"}, "layers become disks; where they come from is not its business"},
		"pkg/kernel":       {[]string{"pkg/ledger"}, "reads kernels, whoever boots them"},
		"pkg/portmux":      {nil, "both ends of a channel share it, so it belongs to neither"},
		"pkg/nbd":          {nil, "requests and a file: who asks, and over what, is its caller's business"},
		"pkg/seccomp":      {nil, "compiles profiles; who installs the programs is not its business"},
		"pkg/archive":      {nil, "files as a tar stream and back, for both ends of a copy"},
		"pkg/agent/api":    {nil, "the protocol is shared by host and guest"},
		"pkg/agent/wire":   {[]string{"pkg/agent/api"}, "frames over a connection, the same at both ends"},
		"pkg/image":        {[]string{"pkg/state", "pkg/ledger"}, "layers go through an interface of its own; only the durable write and locks are shared"},
		"pkg/qemu":         {[]string{"pkg/vmm", "pkg/vmm/template", "pkg/portmux"}, "a driver sees its contract, and the channel it carries"},
		"pkg/firecracker": {[]string{"pkg/vmm", "pkg/vmm/template"},
			"a driver sees its contract only"},
		"pkg/network/denied":     {nil, "one list for all modes"},
		"pkg/network/relay":      {nil, "copies between two connections, whoever made them"},
		"pkg/network/publish":    {[]string{"pkg/network/relay"}, "sockets of the host; the way to the guest is its caller's"},
		"pkg/network/nameserver": {nil, "answers questions; whose names they are, its caller says"},
		"pkg/network/usernet":    {[]string{"pkg/network/denied", "pkg/network/relay", "pkg/network/publish", "pkg/network/nameserver"}, "a stack between frames and sockets: whose, it need not know"},
		"pkg/network/bridge":     {[]string{"pkg/state", "pkg/network/denied"}, "what the kernel is to have; only the lock is shared"},
		"pkg/network/peer":       {[]string{"pkg/network/relay"}, "a protocol between supervisors; who is in a network, its callers say"},
		"pkg/network/ipam":       {nil, "chooses from what it is told is free"},
		"pkg/network":            {[]string{"pkg/network/bridge", "pkg/network/ipam", "pkg/network/usernet", "pkg/network/peer", "pkg/network/relay", "pkg/network/publish", "pkg/network/nameserver"}, "plans networks; records are its callers'"},
		"pkg/agent":              {[]string{"pkg/agent/api", "pkg/nbd"}, "the host side of the protocol"},
		"pkg/guest": {[]string{"pkg/agent/api", "pkg/agent/wire", "pkg/portmux", "pkg/archive"},
			"what runs in the guest must stay small: every import is in each VM's memory"},
		"pkg/supervisor": {[]string{"pkg/state", "pkg/events", "pkg/vmm", "pkg/agent", "pkg/agent/api", "pkg/agent/wire", "pkg/logfile", "pkg/logdriver", "pkg/health", "pkg/network", "pkg/network/usernet", "pkg/network/peer"},
			"it lives as long as its VM, and prepares nothing: no images, no disks, no kernels"},
		"pkg/manager": {[]string{"pkg/state", "pkg/events", "pkg/ledger", "pkg/image", "pkg/rootfs", "pkg/kernel", "pkg/vmm", "pkg/vmm/template", "pkg/agent", "pkg/agent/api", "pkg/seccomp", "pkg/supervisor", "pkg/logfile", "pkg/logdriver", "pkg/health", "pkg/network", "pkg/network/bridge", "pkg/network/ipam"},
			"orchestrates; drivers only through vmm"},
		"cmd/micropod-agent": {[]string{"pkg/guest"}, "main of the guest"},
		"cmd/micropod": {[]string{"pkg/manager", "pkg/firecracker", "pkg/qemu", "pkg/vmm", "pkg/image", "pkg/archive", "pkg/guest"},
			"wires everything; guest only where no agent is embedded (agent_self.go)"},
	}
}

// failpoints may stand anywhere: in what users run they are nothing.
const failpoints = "internal/failpoint"

// TestArrows fails on an import that the drawing does not have.
func TestArrows(t *testing.T) {
	rooms := house()
	seen := map[string]bool{}
	for _, f := range sources(t) {
		pkg := filepath.ToSlash(filepath.Dir(f))
		r, ok := rooms[pkg]
		if !ok {
			if strings.HasPrefix(pkg, "pkg/") && !strings.HasPrefix(pkg, "pkg/vmm/vmmtest") {
				t.Errorf("%s is not in the drawing: add it to house with a reason", pkg)
			}
			continue
		}
		seen[pkg] = true
		for _, imp := range imports(t, f) {
			rel, ours := strings.CutPrefix(imp, module)
			if ours && rel != failpoints && !slices.Contains(r.may, rel) {
				t.Errorf("%s imports %s, which %s may not: %s", f, rel, pkg, r.why)
			}
		}
	}
	for pkg := range rooms {
		if !seen[pkg] {
			t.Errorf("%s is in the drawing but not in the tree", pkg)
		}
	}
}

// TestGuestIsOnlyLinkedWithoutAgent keeps the guest's code out of the binary
// that users run: it belongs to the agent.
func TestGuestIsOnlyLinkedWithoutAgent(t *testing.T) {
	for _, f := range sources(t) {
		if !strings.HasPrefix(filepath.ToSlash(f), "cmd/micropod/") || filepath.Base(f) == "agent_self.go" {
			continue
		}
		if slices.Contains(imports(t, f), module+"pkg/guest") {
			t.Errorf("%s imports pkg/guest", f)
		}
	}
}

// TestLibrariesStaySilent keeps printing, exiting and flags in cmd: a library
// that ends the process takes its caller's clean-up with it.
func TestLibrariesStaySilent(t *testing.T) {
	for _, f := range sources(t) {
		f = filepath.ToSlash(f)
		if !strings.HasPrefix(f, "pkg/") || strings.HasPrefix(f, "pkg/vmm/vmmtest/") {
			continue
		}
		for _, imp := range imports(t, f) {
			if imp == "flag" || imp == "log" || strings.HasPrefix(imp, "github.com/spf13/") {
				t.Errorf("%s imports %s: only cmd talks to people", f, imp)
			}
		}
	}
}

// sources lists the Go files of the tree that are not tests.
func sources(t *testing.T) []string {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []string
	for _, top := range []string{"pkg", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				rel, err := filepath.Rel(root, path)
				files = append(files, rel)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 20 {
		t.Fatalf("only %d files found: the walk is broken", len(files))
	}
	return files
}

func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, path)
	}
	return all
}
