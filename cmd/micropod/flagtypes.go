package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// checked is a flag that can be repeated and refuses a wrong value at once.
type checked struct {
	values *[]string
	kind   string
	check  func(string) (string, error)
}

func newChecked(values *[]string, kind string, check func(string) (string, error)) pflag.Value {
	return &checked{values: values, kind: kind, check: check}
}

// unchecked is the check of what is looked at later.
func unchecked(s string) (string, error) { return s, nil }

func (c *checked) Type() string   { return c.kind }
func (c *checked) String() string { return strings.Join(*c.values, ",") }

func (c *checked) Set(s string) error {
	v, err := c.check(s)
	if err != nil {
		return err
	}
	*c.values = append(*c.values, v)
	return nil
}

// unsupportedFlagError refuses a flag that docker has and MicroPod does not.
type unsupportedFlagError struct {
	name  string
	value string // refused value of a flag that takes others
	why   string // a reason that will stay, "" for "not yet"
}

func (e *unsupportedFlagError) Error() string {
	what := "--" + e.name
	if e.value != "" {
		what += " " + e.value
	}
	if e.why != "" {
		return fmt.Sprintf("%s is not supported: %s", what, e.why)
	}
	return what + " is not supported yet"
}

// unsupported is a flag of docker's that is refused by name, because ignoring it
// would run something else than what was asked for.
type unsupported struct {
	flag dockerFlag
}

func (u *unsupported) String() string { return u.flag.neutral }

func (u *unsupported) Type() string {
	if u.flag.takesValue {
		return "string"
	}
	return "bool"
}

// IsBoolFlag tells pflag that the flag stands alone.
func (u *unsupported) IsBoolFlag() bool { return !u.flag.takesValue }

// Set accepts the value that changes nothing.
func (u *unsupported) Set(s string) error {
	if u.flag.neutral != "" && s == u.flag.neutral {
		return nil
	}
	refused := &unsupportedFlagError{name: u.flag.name, why: u.flag.why}
	if u.flag.takesValue && (u.flag.neutral != "" || u.flag.why != "") {
		refused.value = s
	}
	return refused
}

// refuse adds docker's flags that this verb lacks, hidden, to f.
func refuse(f *pflag.FlagSet, flags []dockerFlag) {
	for _, d := range flags {
		added := f.VarPF(&unsupported{flag: d}, d.name, d.shorthand, "not supported yet")
		added.Hidden = true
		if !d.takesValue {
			added.NoOptDefVal = "true"
		}
	}
}
