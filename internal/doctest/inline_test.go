package doctest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// program builds micropod as `make build` does, but without its agent: enough
// for what needs no VM.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "micropod")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/micropod")
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build micropod: %v\n%s", err, out)
	}
	return bin
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// spans returns the code spans of a page's text outside of its blocks.
func spans(t *testing.T, page string) []string {
	t.Helper()
	var all []string
	fenced := false
	for line := range strings.Lines(readPage(t, page)) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(strings.ReplaceAll(line, `\|`, "|"), -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// TestInlineCommands checks the commands that sentences and tables name: verbs,
// flags, targets and scripts that exist.
func TestInlineCommands(t *testing.T) {
	bin := program(t)
	root := t.TempDir()
	help := func(words ...string) string {
		cmd := exec.Command(bin, slices.Concat(words, []string{"--help"})...)
		cmd.Env = append(os.Environ(), "MICROPOD_ROOT="+root)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("micropod %s --help: %v\n%s", strings.Join(words, " "), err, out)
		}
		return string(out)
	}
	everything := help() + allHelp(help, nil)
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		if page == filepath.Join("docs", "flags.md") {
			continue // it is made of the commands themselves, by a test of theirs
		}
		for _, span := range spans(t, page) {
			words := strings.Fields(span)
			switch first := words[0]; {
			case first == "micropod" && len(words) > 1 && words[1][0] != '.':
				verb := words[1:2]
				if slices.Contains([]string{"image", "container", "manifest", "system"}, verb[0]) {
					verb = words[1:3]
				}
				checkFlags(t, page, span, words, help(verb...))
			case first == "make" && len(words) == 2:
				if !strings.Contains(string(makefile), "\n"+words[1]+":") {
					t.Errorf("%s: %s: there is no such target", page, span)
				}
			case strings.HasPrefix(first, "scripts/"):
				script, err := os.ReadFile(filepath.Join(top, first))
				if err != nil {
					t.Errorf("%s: %s: %v", page, span, err)
				}
				checkFlags(t, page, span, words, string(script))
			case first[0] == '-' && !strings.Contains(first, "…") && first != "-it":
				if !hasFlag(everything, first) && !refused(t, bin, first) {
					t.Errorf("%s: no verb has the flag %s, and none refuses it", page, first)
				}
			}
		}
	}
}

// allHelp is the help of every verb that the help names, and of those below it.
func allHelp(help func(...string) string, above []string) string {
	var all strings.Builder
	_, verbs, _ := strings.Cut(help(above...), "Commands:\n")
	for line := range strings.Lines(verbs) {
		if strings.TrimSpace(line) == "" {
			break
		}
		verb := append(slices.Clone(above), strings.Fields(line)[0])
		all.WriteString(help(verb...) + allHelp(help, verb))
	}
	return all.String()
}

func checkFlags(t *testing.T, page, span string, words []string, help string) {
	t.Helper()
	for _, w := range words {
		if w[0] == '-' && len(w) > 1 && !hasFlag(help, w) {
			t.Errorf("%s: %s: there is no flag %s", page, span, w)
		}
	}
}

func hasFlag(help, flag string) bool {
	flag, _, _ = strings.Cut(flag, "=")
	return regexp.MustCompile(`(^|[\s|(])` + regexp.QuoteMeta(flag) + `($|[\s,=|)])`).MatchString(help)
}

// refused reports whether run refuses a flag of docker's by its name.
func refused(t *testing.T, bin, flag string) bool {
	cmd := exec.Command(bin, "run", flag, "x", "image")
	cmd.Env = append(os.Environ(), "MICROPOD_ROOT="+t.TempDir())
	out, _ := cmd.CombinedOutput()
	return strings.Contains(string(out), "is not supported")
}

// TestErrorsExist finds the texts of the table of errors in the code.
func TestErrorsExist(t *testing.T) {
	texts := literals(t)
	for _, row := range tablesWith(t, "docs/troubleshooting.md", "Error", "What to do")[0].rows {
		for _, part := range strings.Split(strings.ReplaceAll(code(t, row[0]), "…", ": "), ": ") {
			if part = strings.TrimSpace(part); len(part) > 3 && !strings.Contains(texts, part) {
				t.Errorf("no error says %q, as %s does", part, row[0])
			}
		}
		if !strings.ContainsAny(row[1], "abcdefghijklmnopqrstuvwxyz") {
			t.Errorf("%s: nothing to do", row[0])
		}
	}
}

// literals is the text of all string literals of the program, and the scripts.
func literals(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	add := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all.WriteString(s + "\n")
				}
			}
			return true
		})
		return nil
	}
	for _, dir := range []string{"cmd", "pkg"} {
		if err := filepath.WalkDir(filepath.Join(top, dir), add); err != nil {
			t.Fatal(err)
		}
	}
	scripts, err := filepath.Glob(filepath.Join(top, "scripts", "*.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
