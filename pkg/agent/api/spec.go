package api

import "github.com/opencontainers/runtime-spec/specs-go"

// Spec is an OCI runtime spec, as far as a guest goes by one: the fields mean
// what that specification says, and have its names.
//
// It is not the library's type, which has everything for every system in it. On
// its way into a container a spec is encoded and decoded six times, by processes
// that have just begun, and encoding/json first makes itself familiar with all
// that a type could hold: that took a third of a start between the guest's kernel
// and the container's command.
type Spec struct {
	Version     string            `json:"ociVersion"`
	Process     *SpecProcess      `json:"process,omitempty"`
	Root        *specs.Root       `json:"root,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	Mounts      []specs.Mount     `json:"mounts,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Linux       *SpecLinux        `json:"linux,omitempty"`
}

// SpecProcess is the process of a Spec.
type SpecProcess struct {
	Terminal        bool                     `json:"terminal,omitempty"`
	ConsoleSize     *specs.Box               `json:"consoleSize,omitempty"`
	Args            []string                 `json:"args,omitempty"`
	Env             []string                 `json:"env,omitempty"`
	Cwd             string                   `json:"cwd"`
	Capabilities    *specs.LinuxCapabilities `json:"capabilities,omitempty"`
	Rlimits         []specs.POSIXRlimit      `json:"rlimits,omitempty"`
	NoNewPrivileges bool                     `json:"noNewPrivileges,omitempty"`
	OOMScoreAdj     *int                     `json:"oomScoreAdj,omitempty"`
}

// SpecLinux is what of a Spec is particular to Linux.
type SpecLinux struct {
	Sysctl        map[string]string      `json:"sysctl,omitempty"`
	Resources     *Resources             `json:"resources,omitempty"`
	Namespaces    []specs.LinuxNamespace `json:"namespaces,omitempty"`
	Devices       []specs.LinuxDevice    `json:"devices,omitempty"`
	MaskedPaths   []string               `json:"maskedPaths,omitempty"`
	ReadonlyPaths []string               `json:"readonlyPaths,omitempty"`
}

// Resources are the limits of a Spec.
type Resources struct {
	Memory  *specs.LinuxMemory `json:"memory,omitempty"`
	CPU     *specs.LinuxCPU    `json:"cpu,omitempty"`
	Pids    *specs.LinuxPids   `json:"pids,omitempty"`
	Unified map[string]string  `json:"unified,omitempty"`
}
