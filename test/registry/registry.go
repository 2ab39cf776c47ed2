// Package registry runs a real registry, Debian's docker-registry, for tests and
// benchmarks. The kernel chooses its port, and nobody else can have it meanwhile.
package registry

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// limit is for a registry that does not come up.
const limit = 2 * time.Minute

// Registry is one that runs.
type Registry struct {
	Address string // HOST:PORT, without TLS
	cmd     *exec.Cmd
	log     chan struct{} // closed when all of its log has been read
}

// Start runs an empty registry with more lines of configuration. What it has is
// below dir, until the caller removes that. It ends with ctx, or by Stop.
func Start(ctx context.Context, dir, more string) (*Registry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install docker-registry", err)
	}
	config := filepath.Join(dir, "config.yml")
	// It tells its address at level info.
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: \"127.0.0.1:0\"}\n%s", dir, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r := &Registry{cmd: exec.CommandContext(ctx, program, "serve", config), log: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = theirs, theirs
	err = r.cmd.Start()
	theirs.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	late := time.AfterFunc(limit, func() { r.cmd.Process.Kill() })
	defer late.Stop()
	said, err := r.listens(out)
	if err == nil {
		err = answers("http://" + r.Address + "/v2/")
	}
	if err != nil {
		r.Stop()
		return nil, fmt.Errorf("docker-registry: %w\n%s", err, said)
	}
	return r, nil
}

var listening = regexp.MustCompile(`"listening on ([0-9.:]+)"`)

// listens reads the log until it tells the address. What follows is nobody's
// business, but is read all the same.
func (r *Registry) listens(out *os.File) (said string, err error) {
	var all strings.Builder
	lines := bufio.NewReader(out)
	told := make(chan error, 1)
	go func() {
		defer close(r.log)
		defer out.Close()
		for {
			line, err := lines.ReadString('\n')
			if r.Address == "" {
				all.WriteString(line)
				if m := listening.FindStringSubmatch(line); m != nil {
					r.Address = m[1]
					told <- nil
				} else if err != nil {
					told <- fmt.Errorf("it has ended: %w", err)
				}
			}
			if err != nil {
				return
			}
		}
	}()
	err = <-told
	return all.String(), err
}

// answers makes sure that it is a registry that listens, whoever may use it.
func answers(url string) error {
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("it answers with %s", resp.Status)
	}
	return nil
}

// Stop ends it. Idempotent.
func (r *Registry) Stop() {
	r.cmd.Process.Kill()
	<-r.log
	r.cmd.Wait() // the outcome is ours
}
