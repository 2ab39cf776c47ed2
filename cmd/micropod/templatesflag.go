package main

import (
	"strconv"

	"github.com/spf13/pflag"
)

// templates says which VMs go on from templates.
type templates int

const (
	templatesEmulated templates = iota // where the VMM is no security boundary anyway
	templatesAll
	templatesNone
)

// String is the value of the flag that says so, "" for what no flag says.
func (t templates) String() string {
	switch t {
	case templatesAll:
		return "true"
	case templatesNone:
		return "false"
	}
	return ""
}

// Set reads the value of the flag.
func (t *templates) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return err
	}
	*t = templatesNone
	if on {
		*t = templatesAll
	}
	return nil
}

// Type makes the flag one that needs no value.
func (t *templates) Type() string { return "bool" }

// register makes the flag.
func (t *templates) register(f *pflag.FlagSet) {
	flag := f.VarPF(t, "templates", "", "Start VMs after the first from a guest that has booted (default: those that are emulated)")
	flag.NoOptDefVal = "true"
}
