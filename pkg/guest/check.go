package guest

import (
	"path"
	"strings"

	"github.com/micropod/micropod/pkg/agent/api"
)

// checkStart refuses what no stage could start. The host is trusted; this is
// for the messages, and so that a nil pointer is nobody's problem later.
func checkStart(r api.StartRequest) error {
	if err := api.CheckID(r.ID); err != nil {
		return invalid("spec", "%v", err)
	}
	if r.EtcOf != "" && api.CheckID(r.EtcOf) != nil {
		return invalid("spec", "files of /etc of %q", api.Clean(r.EtcOf, 128))
	}
	if f := r.Seccomp; f != nil && (len(f.Program) == 0 || len(f.Program)%filterSize != 0 || len(f.Program) > api.MaxSeccomp) {
		return invalid("seccomp", "a program of %d bytes", len(f.Program))
	}
	if len(r.CACertificates) > api.MaxCACertificates {
		return invalid("certificates", "CA certificates of %d bytes", len(r.CACertificates))
	}
	if r.Spec == nil || r.Spec.Process == nil || r.Spec.Linux == nil {
		return invalid("spec", "no process in the spec")
	}
	if err := checkProcess(r.Spec.Process, r.User, r.GroupAdd); err != nil {
		return err
	}
	return checkNames(r)
}

// checkExec is checkStart for a process that joins a container.
func checkExec(r api.ExecRequest) error {
	for _, id := range []string{r.ID, r.Container} {
		if err := api.CheckID(id); err != nil {
			return invalid("spec", "%v", err)
		}
	}
	if r.Process == nil {
		return invalid("spec", "no process")
	}
	return checkProcess(r.Process, r.User, r.GroupAdd)
}

func checkProcess(p *api.SpecProcess, user string, groupAdd []string) error {
	if len(p.Args) == 0 {
		return invalid("spec", "no command specified")
	}
	if !path.IsAbs(p.Cwd) {
		return invalid("cwd", "the working directory %q is invalid, it needs to be an absolute path", api.Clean(p.Cwd, 1024))
	}
	for _, words := range [][]string{p.Args, p.Env, {p.Cwd, user}, groupAdd} {
		for _, w := range words {
			if strings.ContainsRune(w, 0) {
				return invalid("spec", "a NUL byte in %q", api.Clean(w, 128))
			}
		}
	}
	return nil
}
