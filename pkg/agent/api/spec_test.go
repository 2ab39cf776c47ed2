package api

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestSpecIsOCI holds the types against the library's: each field is there, by
// the same name, in Go and in JSON, and means the same.
func TestSpecIsOCI(t *testing.T) {
	ours := map[reflect.Type]reflect.Type{
		reflect.TypeFor[Spec]():        reflect.TypeFor[specs.Spec](),
		reflect.TypeFor[SpecProcess](): reflect.TypeFor[specs.Process](),
		reflect.TypeFor[SpecLinux]():   reflect.TypeFor[specs.Linux](),
		reflect.TypeFor[Resources]():   reflect.TypeFor[specs.LinuxResources](),
	}
	for our, library := range ours {
		for i := range our.NumField() {
			f := our.Field(i)
			l, ok := library.FieldByName(f.Name)
			if !ok || f.Tag.Get("json") != l.Tag.Get("json") {
				t.Errorf("%s.%s is %q, the library's %q", our, f.Name, f.Tag, l.Tag)
				continue
			}
			same := f.Type == l.Type
			if f.Type.Kind() == reflect.Pointer && !same {
				same = l.Type.Kind() == reflect.Pointer && ours[f.Type.Elem()] == l.Type.Elem()
			}
			if !same {
				t.Errorf("%s.%s is a %s, the library's a %s", our, f.Name, f.Type, l.Type)
			}
		}
	}
}
