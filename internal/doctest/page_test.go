package doctest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// top is the root of the source tree.
const top = "../.."

// block is one fenced block of a page.
type block struct {
	page  string
	line  int // of its first line of text
	class string
	text  string
}

// pages lists README.md and docs/*.md, relative to top.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	list := []string{"README.md"}
	for _, d := range docs {
		list = append(list, filepath.Join("docs", filepath.Base(d)))
	}
	return list
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks cuts the fenced blocks out of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var all []block
	var open *block
	for i, line := range strings.Split(readPage(t, page), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{page: page, line: i + 2, class: strings.TrimSpace(fence)}
		case isFence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block has no end", page, open.line)
	}
	return all
}

// table is one table of a page, with the heading that it stands under.
type table struct {
	page, heading string
	header        []string
	rows          [][]string
}

// tables cuts the tables out of a page.
func tables(t *testing.T, page string) []table {
	t.Helper()
	var all []table
	heading, fenced := "", false
	var open *table
	for _, line := range strings.Split(readPage(t, page)+"\n", "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		switch {
		case fenced:
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		case !strings.HasPrefix(line, "|"):
			if open != nil {
				all = append(all, *open)
				open = nil
			}
		case open == nil:
			open = &table{page: page, heading: heading, header: cells(line)}
		case strings.Trim(line, "|-: ") == "":
		default:
			row := cells(line)
			if len(row) != len(open.header) {
				t.Errorf("%s, %s: %d cells where %d belong: %s", page, heading, len(row), len(open.header), line)
				continue
			}
			open.rows = append(open.rows, row)
		}
	}
	return all
}

// cells splits a line of a table. A bar in code is written as \|.
func cells(line string) []string {
	line = strings.ReplaceAll(line, `\|`, "\x00")
	parts := strings.Split(strings.Trim(line, "|"), "|")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(strings.TrimSpace(p), "\x00", "|")
	}
	return parts
}

// code is the text of a cell that is one code span.
func code(t *testing.T, cell string) string {
	t.Helper()
	if len(cell) < 3 || cell[0] != '`' || cell[len(cell)-1] != '`' {
		t.Fatalf("%q is not a code span", cell)
	}
	return strings.Trim(cell, "`")
}

// tablesWith returns the tables of a page whose first column has this heading.
func tablesWith(t *testing.T, page string, header ...string) []table {
	t.Helper()
	var found []table
	for _, tab := range tables(t, page) {
		if strings.Join(tab.header, "|") == strings.Join(header, "|") {
			found = append(found, tab)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no table with the columns %q", page, header)
	}
	return found
}

// TestBlocksHaveAClass keeps a command from hiding in a block that no test runs.
func TestBlocksHaveAClass(t *testing.T) {
	known := map[string]bool{
		"sh": true, "sh hub": true, "sh tty": true, "sh install": true, "sh self": true, "console": true, "text": true, "json": true,
	}
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if !known[b.class] {
				t.Errorf("%s:%d: unknown class %q of block", b.page, b.line, b.class)
			}
			if b.class != "text" && b.class != "json" {
				continue
			}
			for line := range strings.Lines(b.text) {
				word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch word {
				case "$", "micropod", "./micropod", "make", "sudo", "go":
					t.Errorf("%s:%d: a command in a block that is not run: %s", b.page, b.line, line)
				}
			}
		}
	}
}

// link is a link of a page to a file of the tree, or to a heading of one.
type link struct{ target, file, anchor string }

// links lists the links of a page that do not lead out of the tree. A file is
// relative to top.
func links(t *testing.T, page string) []link {
	t.Helper()
	var all []link
	for _, part := range strings.Split(prose(t, page), "](")[1:] {
		target, _, ok := strings.Cut(part, ")")
		if !ok {
			t.Errorf("%s: a link has no end: %.40q", page, part)
			continue
		}
		if strings.Contains(target, "://") {
			continue
		}
		file, anchor, _ := strings.Cut(target, "#")
		if file == "" {
			file = filepath.Base(page)
		}
		all = append(all, link{target, filepath.Join(filepath.Dir(page), file), anchor})
	}
	return all
}

// prose is the text of a page without its blocks.
func prose(t *testing.T, page string) string {
	t.Helper()
	var text strings.Builder
	fenced := false
	for line := range strings.Lines(readPage(t, page)) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case !fenced:
			text.WriteString(line)
		}
	}
	return text.String()
}

// TestLinksLeadSomewhere checks the links between the pages, and into the tree.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		for _, l := range links(t, page) {
			if _, err := os.Stat(filepath.Join(top, l.file)); err != nil {
				t.Errorf("%s: link to %s: %v", page, l.target, err)
				continue
			}
			if l.anchor == "" {
				continue
			}
			if n := anchors(t, l.file)[l.anchor]; n != 1 {
				t.Errorf("%s: link to %s: %d headings have that name, not 1", page, l.target, n)
			}
		}
	}
}

// TestREADMELeadsToEveryPage keeps a page from being there unread.
func TestREADMELeadsToEveryPage(t *testing.T) {
	linked := map[string]bool{"README.md": true}
	for _, l := range links(t, "README.md") {
		linked[l.file] = true
	}
	for _, page := range pages(t) {
		if !linked[page] {
			t.Errorf("README.md has no link to %s", page)
		}
	}
}

// anchors counts a page's headings by the anchors that lead to them, by the rule
// of the usual renderers.
func anchors(t *testing.T, page string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for line := range strings.Lines(prose(t, page)) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				return r
			}
			return -1
		}, heading)
		found[slug]++
	}
	return found
}
