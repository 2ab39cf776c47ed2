package logdriver

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"
)

// defaultTag is docker's where a tag must be.
const defaultTag = "{{.ID}}"

// attributes are the container's labels and variables that the options name, and
// a tag if one is asked for. name turns a key into a sink's form; nil keeps it.
func (s Spec) attributes(name func(string) string) (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range s.Container.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	out := map[string]string{}
	for _, from := range []struct {
		values       map[string]string
		list, regexp string
	}{{s.Container.Labels, keyLabels, keyLabelsRegex}, {env, keyEnv, keyEnvRegex}} {
		chosen, err := choose(from.values, s.Options[from.list], s.Options[from.regexp])
		if err != nil {
			return nil, err
		}
		for k, v := range chosen {
			if name != nil {
				k = name(k)
			}
			out[k] = v
		}
	}
	if name != nil || s.Options[keyTag] == "" {
		return out, nil
	}
	tag, err := s.tag("")
	if tag != "" {
		out[keyTag] = tag
	}
	return out, err
}

// choose returns the values whose keys are in a list or match a pattern.
func choose(values map[string]string, list, pattern string) (map[string]string, error) {
	out := map[string]string{}
	for _, k := range words(list) {
		if v, ok := values[k]; ok {
			out[k] = v
		}
	}
	if pattern == "" {
		return out, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for k, v := range values {
		if re.MatchString(k) {
			out[k] = v
		}
	}
	return out, nil
}

// tag executes the option tag, or what stands for it.
func (s Spec) tag(otherwise string) (string, error) {
	text := s.Options[keyTag]
	if text == "" {
		text = otherwise
	}
	t, err := template.New("log-tag").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
		"truncate": func(s string, n int) string { return s[:max(0, min(n, len(s)))] },
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, newTagInfo(s.Container))
	return b.String(), err
}

// tagInfo is what the template of a tag sees, by docker's names.
type tagInfo struct {
	ContainerID, ContainerName, ContainerEntrypoint string
	ContainerArgs                                   []string
	ContainerImageID, ContainerImageName            string
	ContainerEnv                                    []string
	ContainerLabels                                 map[string]string
	DaemonName                                      string

	ID, FullID, Name, Command       string
	ImageID, ImageFullID, ImageName string
}

func newTagInfo(c Container) tagInfo {
	t := tagInfo{
		ContainerID: c.ID, ContainerName: "/" + c.Name, ContainerImageID: c.ImageID, ContainerImageName: c.ImageName,
		ContainerEnv: c.Env, ContainerLabels: c.Labels, DaemonName: "micropod",
		ID: short(c.ID), FullID: c.ID, Name: c.Name, Command: strings.Join(c.Args, " "),
		ImageID: short(c.ImageID), ImageFullID: c.ImageID, ImageName: c.ImageName,
	}
	if len(c.Args) > 0 {
		t.ContainerEntrypoint, t.ContainerArgs = c.Args[0], c.Args[1:]
	}
	return t
}

// Hostname is the host's name: {{.Hostname}}.
func (tagInfo) Hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("logger: can not resolve hostname: %w", err)
	}
	return name, nil
}

// short is docker's form of an id for people.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
