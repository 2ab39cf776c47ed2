package doctest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	layoutPage = "docs/disk-layout.md"
	jailPage   = "docs/jail.md"
	usagePage  = "docs/usage.md"
)

// formats are the structs behind the tables of fields, by the table's heading.
func formats() map[string]string {
	return map[string]string{
		"vms.json": "pkg/state", "config.json": "pkg/state", "status.json": "pkg/state",
		"health.json": "pkg/state", "networks.json": "pkg/state",
		"events/events.jsonl": "pkg/events",
		"images/index.jsonl":  "pkg/image", "images/leases": "pkg/image",
		"rootfs/images": "pkg/rootfs", "kernels/facts": "pkg/kernel",
	}
}

// TestLayoutFields compares the fields of every file with the code.
func TestLayoutFields(t *testing.T) {
	described := map[string]bool{}
	for _, tab := range tablesWith(t, layoutPage, fieldHeader...) {
		file, structName, ok := strings.Cut(tab.heading, ": ")
		dir, known := formats()[file]
		if !ok || !known {
			t.Errorf("%s: the heading %q names no file and struct", layoutPage, tab.heading)
			continue
		}
		described[dir+"."+structName] = true
		checkFields(t, tab, parsePackage(t, dir), structName)
	}
	// What a file's struct holds is on the page too.
	for name := range described {
		dir, structName, _ := strings.Cut(name, ".")
		for _, f := range parsePackage(t, dir).fields(t, structName) {
			for _, prefix := range []string{"object ", "object of ", "array of "} {
				inner, ok := strings.CutPrefix(f.kind, prefix)
				if ok && inner != "string" && !strings.HasPrefix(inner, "of ") && !described[dir+"."+inner] {
					t.Errorf("%s does not describe %s of %s", layoutPage, inner, dir)
				}
			}
		}
	}
}

// TestNumbersInText compares numbers that the pages' sentences hold.
func TestNumbersInText(t *testing.T) {
	tests := []struct{ page, dir, name, value, said string }{
		{layoutPage, "pkg/supervisor", "maxLog", fmt.Sprint(1 << 20), "emptied at each start, and at 1 MiB"},
		{layoutPage, "pkg/health", "maxResults", "5", "the last 5 checks"},
		{layoutPage, "pkg/health", "maxOutput", "4096", "the first 4096 bytes"},
		{layoutPage, "pkg/logdriver", "defaultMaxSize", fmt.Sprint(20 << 20), "A file has at most 20 MiB"},
		{layoutPage, "pkg/logdriver", "defaultMaxFiles", "5", "There are at most 5 files"},
		{layoutPage, "pkg/logfile", "MaxText", fmt.Sprint(16 << 10), "A piece has at most 16 KiB"},
		{layoutPage, "pkg/events", "defaultLimit", fmt.Sprint(4 << 20), "once that had 4 MiB"},
		{"docs/network.md", "pkg/agent/api", "MaxCACertificates", fmt.Sprint(1 << 20), "is more than 1 MiB"},
		{layoutPage, "pkg/manager", "consoleLimit", fmt.Sprint(1 << 20), "the guest's serial console; at most 1 MiB"},
		{layoutPage, "pkg/manager", "defaultStop", "10s", "absent is 10 s"},
		{layoutPage, "pkg/state", "schemaVersion", "1", "version of the format, 1"},
		{layoutPage, "pkg/image", "indexVersion", "1", "`{\"version\":1}`"},
		{layoutPage, "pkg/kernel", "factsFormat", "3", "version of the format, 3"},
		{layoutPage, "pkg/image", "maxOthers", "8", "as pulled or pushed, the last 8"},
		{layoutPage, "pkg/image", "minPartial", fmt.Sprint(8 << 20), "a blob of 8 MiB or more"},
		{layoutPage, "pkg/image", "partialLife", "24h0m0s", "removes it after a day"},
		{layoutPage, "pkg/rootfs", "blockSize", "4096", "in blocks of 4 KiB"},
		{usagePage, "pkg/manager", "defaultMemoryMiB", "512", "512 MiB of memory"},
		{usagePage, "pkg/manager", "defaultStorage", fmt.Sprint(10 << 30), "a writable disk of 10 GiB"},
		{usagePage, "pkg/manager", "defaultStop", "10s", "waits 10 s"},
		{"README.md", "pkg/manager", "minMemoryMiB", "64", "64 MiB is the least"},
		{"README.md", "pkg/qemu", "minMajor", "6", "QEMU 6.0"},
		{"docs/configuration.md", "pkg/firecracker", "firstJailID", "1900000000", "`1900000000-1900065535`"},
		{usagePage, "pkg/supervisor", "firstRest", "100ms", "100 ms, doubled each time up to a minute"},
		{usagePage, "pkg/supervisor", "longestRest", "1m0s", "100 ms, doubled each time up to a minute"},
		{usagePage, "pkg/guest", "maxExecs", "128", "takes 128 of them at one time"},
		{usagePage, "pkg/logdriver", "defaultMaxSize", fmt.Sprint(20 << 20), "files that are full at 20 MiB"},
		{usagePage, "pkg/logdriver", "defaultMaxFiles", "5", "the last 5 of them"},
		{usagePage, "pkg/events", "defaultLimit", fmt.Sprint(4 << 20), "the last 4 MiB or more"},
		{"docs/templates.md", "pkg/vmm/template", "failureCounts", "1h0m0s", "for an hour others of its kind do not try again"},
		{jailPage, "pkg/firecracker", "lastJailID", "1900065535", "`1900000000-1900065535`"},
		{jailPage, "pkg/firecracker", "overheadMiB", "64", "the guest's memory, 64 MiB for the VMM"},
		{jailPage, "pkg/firecracker", "tablesPart", "128", "1/128 of the guest's memory for page tables"},
		{jailPage, "pkg/firecracker", "extraCPUs", "1", "one CPU more than the guest has"},
		{jailPage, "pkg/firecracker", "extraPids", "32", "32 more than the guest has CPUs"},
	}
	for _, tt := range tests {
		if got := parsePackage(t, tt.dir).value(t, tt.name); got != tt.value {
			t.Errorf("%s of %s is %s; change %q in %s", tt.name, tt.dir, got, tt.said, tt.page)
		}
		text := strings.Join(strings.Fields(readPage(t, tt.page)), " ")
		if !strings.Contains(text, tt.said) {
			t.Errorf("%s does not say %q", tt.page, tt.said)
		}
	}
}

// pathRule is one row of the tables of paths.
type pathRule struct {
	path, mode, life string
	match            *regexp.Regexp
	seen             bool
}

func pathRules(t *testing.T) []*pathRule {
	t.Helper()
	var rules []*pathRule
	for _, tab := range tablesWith(t, layoutPage, "Path", "Owner", "Mode", "Life", "What") {
		for _, row := range tab.rows {
			r := &pathRule{path: code(t, row[0]), mode: row[2], life: row[3]}
			pattern := regexp.QuoteMeta(strings.TrimSuffix(r.path, "/"))
			pattern = strings.NewReplacer(
				"<id>", "[0-9a-f]{64}", "<hex>", "[0-9a-f]{16,64}", "<key>", "[0-9a-z]+", "<n>", "[0-9A-Za-z]+",
				"<release>", "[0-9][0-9A-Za-z.+~_-]*", "/<path>", "(/.*)?", "<path>", ".+").Replace(pattern)
			r.match = regexp.MustCompile("^" + pattern + "$")
			rules = append(rules, r)
			owner := strings.Trim(row[1], "`")
			if _, err := os.Stat(filepath.Join(top, owner)); err != nil && owner != "the VMM driver" {
				t.Errorf("%s: owner of %s: %v", layoutPage, r.path, err)
			}
			switch r.life {
			case "permanent", "running", "rare":
			default:
				t.Errorf("%s: %s lives %q", layoutPage, r.path, r.life)
			}
		}
	}
	return rules
}

// checkTree holds each path below dir, which stands for prefix in a root, to
// the first rule that it matches.
func checkTree(t *testing.T, rules []*pathRule, dir, prefix string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(filepath.Join(prefix, rel))
		info, err := d.Info()
		if err != nil {
			return err
		}
		if rel == "." {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("the root has mode %v", info.Mode())
			}
			return nil
		}
		for _, r := range rules {
			if r.match.MatchString(rel) {
				r.seen = true
				r.check(t, rel, info)
				return nil
			}
		}
		t.Errorf("%s is not in %s", rel, layoutPage)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (r *pathRule) check(t *testing.T, rel string, info fs.FileInfo) {
	t.Helper()
	mode := info.Mode()
	free := strings.Contains(r.path, "<path>")
	if !free && strings.HasSuffix(r.path, "/") != mode.IsDir() {
		t.Errorf("%s is %v, the page calls it %s", rel, mode, r.path)
	}
	switch r.mode {
	case "link":
		if mode.Type() != fs.ModeSymlink {
			t.Errorf("%s is %v, not a link", rel, mode)
		}
	case "by umask":
		if mode.Type() != fs.ModeSocket {
			t.Errorf("%s is %v: only sockets have their mode by umask", rel, mode)
		}
	case "of the jail":
		// The directory above lets nobody but root pass.
	case "any":
		if mode.Type() != fs.ModeSymlink && mode.Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can see it", rel, mode)
		}
	default:
		if got := fmt.Sprintf("%04o", mode.Perm()); got != r.mode {
			t.Errorf("%s has mode %s, the page says %s", rel, got, r.mode)
		}
	}
}
