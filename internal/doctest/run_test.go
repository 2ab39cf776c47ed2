package doctest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// user is somebody who follows the pages: a copy of the tree, a home, a shell.
type user struct {
	tree, home string
	env        []string
	hub        string // address of what stands in for Docker Hub, once it is there
}

// TestCommands follows README.md and docs/ from the top, as a user with a fresh
// home would, in real VMs. It needs a guest kernel (MICROPOD_TEST_KERNEL).
func TestCommands(t *testing.T) {
	kernel := os.Getenv("MICROPOD_TEST_KERNEL")
	if kernel == "" || testing.Short() {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_KERNEL must name a guest kernel")
		}
		t.Skip("MICROPOD_TEST_KERNEL does not name a guest kernel (make test does)")
	}
	u := newUser(t, kernel)
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			u.follow(t, b)
		}
		u.checkNothingLeft(t, page)
	}
	t.Run("layout", func(t *testing.T) { u.checkLayout(t, kernel) })
}

func newUser(t *testing.T, kernel string) *user {
	t.Helper()
	// Short, as a home is.
	home, err := os.MkdirTemp("/tmp", "mpdoc")
	if err != nil {
		t.Fatal(err)
	}
	u := &user{tree: filepath.Join(home, "micropod"), home: home}
	u.env = environment(t, home)
	t.Cleanup(func() { u.leave(t) })
	copyTree(t, top, u.tree)
	// The kernel that scripts/download-kernel.sh would fetch.
	kernel, err = filepath.Abs(kernel)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(u.root(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kernel, filepath.Join(u.root(), "vmlinux")); err != nil {
		t.Fatal(err)
	}
	return u
}

// root is the default that the pages name.
func (u *user) root() string { return filepath.Join(u.home, ".config", "micropod") }

// environment is a fresh one, but for the caches of Go. CGO_ENABLED is not
// handed on: a user's plain `go build` has Go's own default.
func environment(t *testing.T, home string) []string {
	t.Helper()
	env := []string{
		"HOME=" + home, "PATH=" + filepath.Join(home, ".local/bin") + ":" + os.Getenv("PATH"),
		"LC_ALL=C", "TERM=xterm", "TMPDIR=" + home, "DOCKER_HOST=unix:///nonexistent/docker.sock",
	}
	for _, key := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOFLAGS", "GOSUMDB", "GOTOOLCHAIN"} {
		out, err := exec.Command("go", "env", key).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, key+"="+strings.TrimSpace(string(out)))
	}
	return env
}

// leave removes everything, containers first.
func (u *user) leave(t *testing.T) {
	if _, err := os.Stat(filepath.Join(u.tree, "micropod")); err == nil {
		out, err := u.shell(`for id in $(./micropod list -aq); do ./micropod rm -f $id; done`)
		if err != nil {
			t.Errorf("remove what is left: %v\n%s", err, out)
		}
	}
	if err := os.RemoveAll(u.home); err != nil {
		t.Error(err)
	}
}

// checkNothingLeft holds a page to removing its containers: the next one may use
// their names, and a reader who follows it has a clean machine.
func (u *user) checkNothingLeft(t *testing.T, page string) {
	t.Helper()
	out, err := u.shell("micropod list -a --format '{{.Name}}'")
	if err != nil || out != "" {
		t.Errorf("%s leaves containers: %v\n%s", page, err, out)
	}
}

// copyTree copies the sources, so that builds and downloads stay out of the tree.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	skip := map[string]bool{".git": true, ".cache": true, "micropod": true, "micropod-agent": true}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case skip[rel] && d.IsDir():
			return filepath.SkipDir
		case skip[rel]:
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's file that was there just now
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// follow does what a block says.
func (u *user) follow(t *testing.T, b block) {
	t.Helper()
	t.Logf("%s:%d %s", b.page, b.line, b.class)
	switch b.class {
	case "sh":
		u.script(t, b, b.text)
	case "sh hub":
		u.script(t, b, u.fromHub(t, b))
	case "sh tty":
		u.terminal(t, b)
	case "sh install":
		checkPackages(t, b)
	case "sh self":
		if out, err := u.shell("make -n " + strings.TrimPrefix(strings.TrimSpace(b.text), "make ")); err != nil {
			t.Errorf("%s:%d: %v\n%s", b.page, b.line, err, out)
		}
	case "console":
		u.transcript(t, b)
	}
}

// shell runs a script in the tree and returns all that it printed.
func (u *user) shell(script string) (string, error) {
	cmd := u.command(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (u *user) command(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir, cmd.Env = u.tree, u.env
	return cmd
}

func (u *user) script(t *testing.T, b block, text string) {
	t.Helper()
	out, err := u.shell(text)
	if err != nil {
		t.Errorf("%s:%d: %v\n%s\n%s", b.page, b.line, err, text, out)
	}
	if strings.Contains(text, "make quickstart") && !strings.Contains(out, "hello from inside a microVM: Linux ") {
		t.Errorf("make quickstart shows no guest:\n%s", out)
	}
}

// terminal runs a block on a terminal, and leaves the shell that it starts.
func (u *user) terminal(t *testing.T, b block) {
	t.Helper()
	cmd := u.command(b.text)
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	// Only a broken program needs it.
	timer := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var out bytes.Buffer
	asked := false
	for buf := make([]byte, 4096); ; {
		n, err := tty.Read(buf)
		out.Write(buf[:n])
		if !asked && strings.Contains(out.String(), "# ") {
			asked = true
			if _, err := io.WriteString(tty, "tty; exit\r"); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil { // EIO at the end
			break
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "/dev/pts/") {
		t.Fatalf("%s:%d: %v\n%s", b.page, b.line, err, out.String())
	}
}

// transcript runs each command of a block and compares what it prints.
func (u *user) transcript(t *testing.T, b block) {
	t.Helper()
	var steps []struct{ command, want string }
	for line := range strings.Lines(b.text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, struct{ command, want string }{command: command})
			continue
		}
		if len(steps) == 0 {
			t.Fatalf("%s:%d: output without a command", b.page, b.line)
		}
		steps[len(steps)-1].want += line
	}
	for _, s := range steps {
		want := outputPattern(s.want)
		var got string
		try := func() bool {
			// A transcript shows failures too: the exit code is part of the text.
			out, _ := u.shell("set +e; " + s.command)
			got = withoutWarning(out)
			return want.MatchString(squeeze(got))
		}
		ok := try()
		// What a container prints arrives a moment after it was started.
		for end := time.Now().Add(2 * time.Minute); !ok && looksOnly(s.command) && time.Now().Before(end); {
			time.Sleep(100 * time.Millisecond)
			ok = try()
		}
		if !ok {
			t.Errorf("%s:%d: $ %s\n%s\nthe page shows\n%s", b.page, b.line, s.command, got, s.want)
		}
	}
}

func looksOnly(command string) bool {
	return regexp.MustCompile(`^micropod (list|logs|inspect) `).MatchString(command + " ")
}

// withoutWarning drops the one line that only machines without KVM print.
func withoutWarning(out string) string {
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "micropod: warning: this VM is emulated") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// squeeze makes the width of columns no matter.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " ")+"\n")
	}
	return strings.Join(lines, "")
}

// outputPattern is the shown output as an expression.
func outputPattern(want string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(squeeze(want))
	pattern = strings.ReplaceAll(pattern, "…", ".*")
	return regexp.MustCompile("^" + pattern + "$")
}

var hubImages = regexp.MustCompile(`\b(alpine|nginx)\b`)

// fromHub is the text of a block whose images come from a registry of our own,
// with busybox behind the names.
func (u *user) fromHub(t *testing.T, b block) string {
	t.Helper()
	if !hubImages.MatchString(b.text) {
		t.Fatalf("%s:%d: no image of Docker Hub in the block", b.page, b.line)
	}
	if u.hub == "" {
		u.hub = u.serveHub(t)
	}
	text := strings.ReplaceAll(b.text, "localhost:5000", u.hub)
	return hubImages.ReplaceAllString(text, u.hub+"/library/$1")
}

func (u *user) serveHub(t *testing.T) string {
	t.Helper()
	if out, err := u.shell("micropod save -o hub.tar micropod/busybox"); err != nil {
		t.Fatalf("save the stand-in: %v\n%s", err, out)
	}
	image, err := tarball.ImageFromPath(filepath.Join(u.tree, "hub.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(discard())))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	for repository, cmd := range map[string][]string{"alpine": {"sh"}, "nginx": {"sleep", "1000"}} {
		standIn, err := mutate.Config(image, v1.Config{Cmd: cmd, Env: []string{"PATH=/bin"}})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(address + "/library/" + repository)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, standIn); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

// checkPackages asks apt for the packages of an apt-get line.
func checkPackages(t *testing.T, b block) {
	t.Helper()
	aptCache, err := exec.LookPath("apt-cache")
	if err != nil {
		t.Logf("no apt-cache here: %s is not checked", strings.TrimSpace(b.text))
		return
	}
	_, packages, ok := strings.Cut(b.text, "apt-get install ")
	if !ok {
		t.Fatalf("%s:%d: no apt-get install", b.page, b.line)
	}
	for _, p := range strings.Fields(packages) {
		if out, err := exec.Command(aptCache, "show", p).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Package: "+p+"\n")) {
			t.Errorf("%s:%d: package %s: %v\n%s", b.page, b.line, p, err, out)
		}
	}
}

// checkLayout holds the root to docs/disk-layout.md while a container runs and
// after one has run, and finds each path of the page that is not called rare.
func (u *user) checkLayout(t *testing.T, kernel string) {
	rules := pathRules(t)
	script := `micropod run --rm --name short micropod/busybox true; micropod run -d --name long micropod/busybox sleep 1000`
	if out, err := u.shell(script); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkTree(t, rules, u.root(), "")
	if out, err := u.shell("micropod kill long"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stopped := pathRules(t)
	checkTree(t, stopped, u.root(), "")
	for _, r := range stopped {
		if r.life == "running" && r.seen {
			t.Errorf("%s is there after the VM has ended", r.path)
		}
		if r.life == "permanent" && !r.seen && strings.HasPrefix(r.path, "vms/") {
			t.Errorf("%s is not there any more after the VM has ended", r.path)
		}
	}
	if out, err := u.shell("micropod rm long"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(u.root(), "vms", "*")); len(left) > 0 {
		t.Errorf("left of the containers: %q", left)
	}
	// The kernel's own directory is beside it, in the root it was fetched for.
	if resolved, err := filepath.EvalSymlinks(kernel); err == nil {
		if kernels := filepath.Dir(filepath.Dir(resolved)); filepath.Base(kernels) == "kernels" {
			checkTree(t, rules, kernels, "kernels")
		}
	}
	for _, r := range rules {
		if !r.seen && r.life != "rare" {
			t.Errorf("no %s: %s says that there is one", r.path, layoutPage)
		}
	}
	u.checkInitramfs(t)
}

// checkInitramfs lists what a guest boots.
func (u *user) checkInitramfs(t *testing.T) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(u.root(), "initramfs", "*.cpio"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no initramfs: %v", err)
	}
	allowed := regexp.MustCompile(`^(init|modules(/serial|/vsock|/late|/net|/disk|/tap)?|modules/((serial|vsock|late|net|disk|tap)/)?[0-9]{2}-[a-zA-Z0-9_-]+\.ko|(usr/)?lib(64|32)?(/.*)?|usr)$`)
	for _, path := range names {
		for _, entry := range cpioNames(t, path) {
			if !allowed.MatchString(entry) {
				t.Errorf("%s holds %s", filepath.Base(path), entry)
			}
		}
	}
}
