package doctest

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// source is the declarations of a package, exported or not: tables name both.
type source struct {
	types  map[string]ast.Expr
	consts map[string]ast.Expr
	typeOf map[string]string // of a constant, where it is declared with one
}

func parsePackage(t *testing.T, dir string) *source {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	s := &source{types: map[string]ast.Expr{}, consts: map[string]ast.Expr{}, typeOf: map[string]string{}}
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				s.add(g)
			}
		}
	}
	return s
}

func (s *source) add(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			s.types[spec.Name.Name] = spec.Type
		case *ast.ValueSpec:
			for i, name := range spec.Names {
				if g.Tok != token.CONST || i >= len(spec.Values) {
					continue
				}
				s.consts[name.Name] = spec.Values[i]
				if spec.Type != nil {
					s.typeOf[name.Name] = types.ExprString(spec.Type)
				}
			}
		}
	}
}

// value evaluates a constant. One of time.Duration is written as such.
func (s *source) value(t *testing.T, name string) string {
	t.Helper()
	e, ok := s.consts[name]
	if !ok {
		t.Errorf("there is no constant %s", name)
		return ""
	}
	text := types.ExprString(e)
	plain := strings.NewReplacer("time.Millisecond", "1000000", "time.Second", "1000000000", "time.Minute", "60000000000", "time.Hour", "3600000000000").Replace(text)
	tv, err := types.Eval(token.NewFileSet(), nil, token.NoPos, plain)
	if err != nil {
		t.Fatalf("evaluate %s = %s: %v", name, text, err)
	}
	if tv.Value.Kind() == constant.String {
		return constant.StringVal(tv.Value)
	}
	if plain != text {
		n, _ := constant.Int64Val(tv.Value)
		return time.Duration(n).String()
	}
	return tv.Value.ExactString()
}

// field is a field of a message or file as the pages describe it.
type field struct{ name, kind, empty string }

// fields lists what encoding/json makes of a struct.
func (s *source) fields(t *testing.T, name string) []field {
	t.Helper()
	st, ok := s.types[name].(*ast.StructType)
	if !ok {
		t.Errorf("there is no struct %s", name)
		return nil
	}
	var all []field
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			t.Errorf("%s has a field without a json tag", name)
			continue
		}
		raw, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		key, option, _ := strings.Cut(reflect.StructTag(raw).Get("json"), ",")
		empty := "sent"
		if option != "" {
			empty = "left out"
		}
		all = append(all, field{key, s.kind(t, f.Type), empty})
	}
	return all
}

// kind is the type of a field in the words of the pages.
func (s *source) kind(t *testing.T, e ast.Expr) string {
	t.Helper()
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.kind(t, e.X)
	case *ast.ArrayType:
		if types.ExprString(e.Elt) == "byte" {
			return "string, base64"
		}
		return "array of " + strings.TrimPrefix(s.kind(t, e.Elt), "object ")
	case *ast.MapType:
		return "object of " + strings.TrimPrefix(s.kind(t, e.Value), "object ")
	}
	name := types.ExprString(e)
	switch name {
	case "string", "netip.Addr", "netip.Prefix":
		return "string"
	case "bool":
		return "boolean"
	case "int", "int64", "uint16", "uint32", "uint64":
		return "integer"
	case "time.Time":
		return "string, RFC 3339"
	case "time.Duration":
		return "integer, nanoseconds"
	case "json.RawMessage":
		return "JSON"
	}
	if name, ok := strings.CutPrefix(name, "specs."); ok {
		return "object, OCI runtime spec's " + name
	}
	under, ok := s.types[name]
	if !ok {
		t.Fatalf("no words for the type %s", name)
	}
	if _, ok := under.(*ast.StructType); ok {
		return "object " + name
	}
	return s.kind(t, under)
}

// checkFields compares a table of fields with the struct, in both directions
// and in the order of the code.
func checkFields(t *testing.T, tab table, s *source, structName string) {
	t.Helper()
	var got, want []string
	for _, row := range tab.rows {
		got = append(got, fmt.Sprint(field{code(t, row[0]), row[1], row[2]}))
		if row[3] == "" {
			t.Errorf("%s, %s: %s has no meaning", tab.page, tab.heading, row[0])
		}
	}
	for _, f := range s.fields(t, structName) {
		want = append(want, fmt.Sprint(f))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %s\n page %q\n code %q", tab.page, tab.heading, got, want)
	}
}
