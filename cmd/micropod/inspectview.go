package main

import (
	"math"
	"time"

	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/manager"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What inspect prints has docker's names and shape, so that the templates of
// docker's users work; what docker has no word for is under MicroPod.

type containerView struct {
	ID           string `json:"Id"`
	Created      string
	Path         string
	Args         []string
	State        stateView
	Image        string
	LogPath      string
	Name         string
	RestartCount int
	Platform     string
	HostConfig   hostConfigView
	Config       configView

	NetworkSettings networkSettingsView
	MicroPod        microPodView
}

type stateView struct {
	Status                                       string
	Running, Paused, Restarting, OOMKilled, Dead bool
	Pid, ExitCode                                int
	Error, StartedAt, FinishedAt                 string
	Health                                       *healthView `json:",omitempty"`
}

type configView struct {
	Hostname   string
	Domainname string
	User       string
	Tty        bool
	OpenStdin  bool
	StdinOnce  bool
	Env        []string
	Cmd        []string
	Image      string
	WorkingDir string
	Entrypoint []string

	ExposedPorts map[string]struct{} `json:",omitempty"`
	Labels       map[string]string
	Healthcheck  *image.Healthcheck `json:",omitempty"`
	Shell        []string           `json:",omitempty"`
	StopSignal   string             `json:",omitempty"`
	StopTimeout  *int               `json:",omitempty"`
}

type microPodView struct {
	VMM              manager.VMMInfo
	VMOf             string `json:",omitempty"` // the container whose VM it shares
	SupervisorPid    int
	CPUs, MemoryMiB  int
	Kernel           string
	FromTemplate     bool // the guest of the last start went on from one
	Dir, ConsolePath string
	Disks            []string
	Phases           []phaseView
	CACertificates   []string `json:",omitempty"` // their subjects
	Problem          string   `json:",omitempty"`
}

type phaseView struct {
	Name     string
	Duration string
}

// inspectTime is docker's form of a time; the year one is "never".
func inspectTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func inspectContainer(c *manager.Container) containerView {
	path, args := splitCommand(c.Command)
	v := containerView{
		ID: c.ID, Created: inspectTime(c.Created), Path: path, Args: args, Image: c.ImageID,
		LogPath: c.LogPath, Name: "/" + c.Name, RestartCount: c.RestartCount, Platform: c.Platform,
		State: stateView{
			Status: string(c.State), Running: c.State == manager.StateRunning || c.State == manager.StatePaused || c.State == manager.StateRestarting,
			Restarting: c.State == manager.StateRestarting,
			Paused:     c.State == manager.StatePaused, Dead: c.State == manager.StateBroken,
			OOMKilled: c.OOMKilled, Pid: c.PID, ExitCode: c.ExitCode, Error: c.Error,
			StartedAt: inspectTime(c.StartedAt), FinishedAt: inspectTime(c.FinishedAt),
			Health: inspectHealth(c.Health),
		},
		HostConfig: inspectHostConfig(c), NetworkSettings: inspectNetwork(c),
		Config: configView{
			Hostname: c.Hostname, Domainname: c.Domainname, User: c.User, Tty: c.TTY, OpenStdin: c.Stdin, StdinOnce: c.Stdin && !c.StdinStays, Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint, Image: c.Image,
			WorkingDir: c.Workdir, ExposedPorts: set(c.ExposedPorts), Labels: notNil(c.Labels), Healthcheck: (*image.Healthcheck)(c.Healthcheck), Shell: c.Shell, StopSignal: c.StopSignal, StopTimeout: wholeSeconds(c.StopTimeout),
		},
		MicroPod: microPodView{
			VMM: c.VMM, VMOf: c.VMOf, SupervisorPid: c.SupervisorPID, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB, Kernel: c.Kernel,
			FromTemplate: c.FromTemplate, Dir: c.Dir, ConsolePath: c.ConsolePath, Disks: c.Disks, Problem: c.Problem, Phases: []phaseView{},
			CACertificates: manager.CACertificateNames(c.HostConfig),
		},
	}
	for _, p := range c.Phases {
		v.MicroPod.Phases = append(v.MicroPod.Phases, phaseView{Name: p.Name, Duration: p.Duration.String()})
	}
	return v
}

// wholeSeconds rounds up: half a second of grace is not none.
func wholeSeconds(d *time.Duration) *int {
	if d == nil {
		return nil
	}
	s := int(math.Ceil(d.Seconds()))
	return &s
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

type imageView struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string // docker's builder before 2015; always empty
	Comment       string
	Created       string
	DockerVersion string
	Author        string
	Config        image.Settings
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	OsVersion     string `json:",omitempty"`
	Size          int64
	GraphDriver   graphDriverView
	RootFS        rootFSView
	Metadata      metadataView
	History       []ocispec.History `json:",omitempty"`
}

type graphDriverView struct {
	Data map[string]string
	Name string
}

type rootFSView struct {
	Type   string
	Layers []string
}

type metadataView struct{ LastTagTime string }

func inspectImage(i *manager.Image) imageView {
	os, arch, variant := platformParts(i.Platform)
	v := imageView{
		ID: i.ID, RepoTags: []string{}, RepoDigests: []string{}, Comment: i.Docker.Comment, Created: inspectTime(i.Created),
		DockerVersion: i.Docker.DockerVersion, Author: i.Config.Author, Config: i.Docker.Config,
		Architecture: arch, Variant: variant, Os: os, OsVersion: i.Config.OSVersion, Size: i.Size,
		GraphDriver: graphDriverView{Name: "micropod"}, Metadata: metadataView{LastTagTime: inspectTime(i.Added)},
		RootFS: rootFSView{Type: "layers", Layers: i.DiffIDs}, History: i.Config.History,
	}
	// Docker shows the newest step's comment, where builders of today put theirs.
	if n := len(v.History); v.Comment == "" && n > 0 {
		v.Comment = v.History[n-1].Comment
	}
	for _, n := range i.Names {
		v.RepoTags = append(v.RepoTags, familiarName(n))
	}
	for _, d := range i.Digests {
		v.RepoDigests = append(v.RepoDigests, familiarName(d))
	}
	return v
}
