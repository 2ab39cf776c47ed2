package main

import (
	"path"
	"strings"
)

// familiarName is an image's name as docker shows it: without the default
// registry and its library folder.
func familiarName(name string) string {
	rest, ok := strings.CutPrefix(name, "docker.io/")
	if !ok {
		rest, ok = strings.CutPrefix(name, "index.docker.io/")
	}
	if !ok {
		return name
	}
	if short, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return rest
}

// splitName cuts an image's name into repository and tag; a port is no tag.
func splitName(name string) (repository, tag string) {
	name, _, _ = strings.Cut(name, "@")
	colon := strings.LastIndexByte(name, ':')
	if colon <= strings.LastIndexByte(name, '/') {
		return name, ""
	}
	return name[:colon], name[colon+1:]
}

// matchesName reports whether an image's name fits a pattern such as
// "busybox", "busy*" or "busybox:1.*". Without a tag any tag fits.
func matchesName(pattern, name string) bool {
	repository, tag := splitName(familiarName(name))
	wanted, wantedTag := splitName(familiarName(pattern))
	if ok, err := path.Match(wanted, repository); err != nil || !ok {
		return false
	}
	if wantedTag == "" {
		return true
	}
	ok, err := path.Match(wantedTag, tag)
	return err == nil && ok
}
