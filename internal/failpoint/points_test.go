package failpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryPointStandsOnce holds the constants, the lists and the program
// together: a point that is in the program and not in a list would never be
// swept.
func TestEveryPointStandsOnce(t *testing.T) {
	names := constants(t)
	if all := All(); len(all) != len(names) {
		t.Errorf("All has %d points, there are %d", len(all), len(names))
	}
	used, orVMM := uses(t)
	for name, point := range names {
		if !slices.Contains(All(), point) {
			t.Errorf("%s is not in All", name)
		}
		if used[name] != 1 {
			t.Errorf("%s stands at %d places of the program", name, used[name])
		}
		if orVMM[name] != slices.Contains(VMM(), point) {
			t.Errorf("%s: that the VMM can die there is %v, and in the list %v", name, orVMM[name], !orVMM[name])
		}
	}
	for name := range used {
		if _, ok := names[name]; !ok {
			t.Errorf("failpoint.%s is used and is no point", name)
		}
	}
}

// constants are the points by the names of their constants.
func constants(t *testing.T) map[string]Point {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]Point{}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names[v.Names[0].Name] = Point(text)
		}
		return true
	})
	if len(names) == 0 {
		t.Fatal("no constants found")
	}
	return names
}

// uses counts the calls of Here and HereOr for each constant.
func uses(t *testing.T) (count map[string]int, orVMM map[string]bool) {
	t.Helper()
	count, orVMM = map[string]int{}, map[string]bool{}
	for _, top := range []string{"../../pkg", "../../cmd"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f := selected(call.Fun); f == "Here" || f == "HereOr" {
					name := selected(call.Args[0])
					count[name]++
					orVMM[name] = f == "HereOr"
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return count, orVMM
}

// selected is X of failpoint.X.
func selected(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); !ok || x.Name != "failpoint" {
		return ""
	}
	return s.Sel.Name
}
