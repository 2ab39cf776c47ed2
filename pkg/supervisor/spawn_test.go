package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogOfTheLastRun: a look at a container's files leaves what its supervisor
// said, and does not make it longer without end.
func TestLogOfTheLastRun(t *testing.T) {
	long := strings.Repeat("x", maxLog)
	for name, tt := range map[string]struct {
		service      bool
		before, want string
	}{
		"a start":            {false, "before\n", "now\n"},
		"files":              {true, "before\n", "before\nnow\n"},
		"files, never begun": {true, "", "now\n"},
		"files, a long log":  {true, long, "now\n"},
	} {
		p := Plan{Dir: t.TempDir(), Service: tt.service}
		path := filepath.Join(p.Dir, logName)
		if err := os.WriteFile(path, []byte(tt.before), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := openLog(p)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("now\n")
		f.Close()
		if b, err := os.ReadFile(path); err != nil || string(b) != tt.want {
			t.Errorf("%s: %.20q, %v", name, b, err)
		}
	}
}
