package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/micropod/micropod/pkg/manager"
)

// checkMount refuses a wrong --mount where it is read.
func checkMount(s string) (string, error) {
	_, err := parseMount(s)
	return s, err
}

// parseMount reads a --mount, comma-separated KEY=VALUE. Only tmpfs is there yet.
func parseMount(s string) (manager.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return manager.Mount{}, err
	}
	p := mountParser{kind: "volume"} // docker's default
	for _, f := range fields {
		if err := p.field(f); err != nil {
			return p.m, err
		}
	}
	if p.kind != "tmpfs" {
		return p.m, &unsupportedFlagError{name: "mount type=" + p.kind}
	}
	if p.foreign != "" {
		return p.m, fmt.Errorf("cannot mix '%s-*' options with mount type 'tmpfs'", p.foreign)
	}
	if p.m.Target == "" {
		return p.m, errors.New("target is required")
	}
	if p.source {
		return p.m, errors.New(`invalid mount config for type "tmpfs": field Source must not be specified`)
	}
	return p.m, nil
}

type mountParser struct {
	m       manager.Mount
	kind    string
	source  bool
	foreign string // the first option of another type
}

func (p *mountParser) field(f string) (err error) {
	key, value, hasValue := strings.Cut(f, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	if !hasValue {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive":
			value = "true"
		default:
			return fmt.Errorf("invalid field '%s' must be a key=value pair", f)
		}
	}
	switch key {
	case "type":
		p.kind = strings.ToLower(value)
	case "source", "src":
		p.source = true
	case "target", "dst", "destination":
		p.m.Target = value
	case "readonly", "ro":
		if p.m.ReadOnly, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
	case "tmpfs-size":
		if p.m.SizeBytes, err = units.RAMInBytes(value); err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		if err != nil || mode > 0o7777 {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		p.m.Mode = uint32(mode)
	case "consistency": // of Docker Desktop only
	default:
		return p.other(key, f)
	}
	return nil
}

// other takes the options of docker's other types: that they do not fit is said
// when the type is known.
func (p *mountParser) other(key, f string) error {
	for _, kind := range []string{"bind", "volume", "image", "cluster"} {
		if strings.HasPrefix(key, kind+"-") {
			p.foreign = kind
			return nil
		}
	}
	return fmt.Errorf("unexpected key '%s' in '%s'", key, f)
}
