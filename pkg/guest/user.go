package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of the image's passwd and group files, in bytes.
const (
	maxAccounts = 8 << 20
	maxLine     = 64 << 10
	maxUserID   = math.MaxInt32
)

// identity is who a process runs as.
type identity struct {
	UID, GID int
	Groups   []int  // supplementary groups, GID among them
	Home     string // of the passwd file; "/" if it does not name the user
}

// account is a line of /etc/passwd, passwd(5).
type account struct {
	name     string
	uid, gid int
	home     string
}

// resolve finds out who "user" is, in the image's own files and by docker's
// rules: digits are always an id, whatever names the files have; supplementary
// groups come from /etc/group unless a group is named.
func resolve(root imageRoot, user string, groupAdd []string) (identity, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	who := identity{Home: "/"}
	acc, err := findAccount(root, name)
	if err != nil {
		return who, err
	}
	if acc.known {
		who.UID, who.GID, who.Home = acc.uid, acc.gid, acc.home
	} else {
		who.UID = acc.uid
	}
	if hasGroup && group != "" {
		gid, err := findGroup(root, group)
		if err != nil {
			return who, err
		}
		who.GID = gid
		who.Groups = []int{gid}
	} else {
		who.Groups = []int{who.GID}
		if acc.known {
			more, err := groupsOf(root, acc.name)
			if err != nil {
				return who, err
			}
			who.Groups = append(who.Groups, more...)
		}
	}
	for _, g := range groupAdd {
		gid, err := findGroup(root, g)
		if err != nil {
			return who, err
		}
		who.Groups = append(who.Groups, gid)
	}
	who.Groups = unique(who.Groups)
	return who, nil
}

// unique keeps the first of equal ids.
func unique(ids []int) []int {
	var out []int
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

type foundAccount struct {
	account
	known bool // it is in the file
}

// findAccount looks up the part before the colon; "" is uid 0.
func findAccount(root imageRoot, name string) (foundAccount, error) {
	if name == "" {
		name = "0"
	}
	var found foundAccount
	id, isID, err := parseID(name)
	if err != nil {
		return found, fmt.Errorf("user %s: %w", name, err)
	}
	found.uid = id
	err = scanLines(root, "/etc/passwd", func(f []string) bool {
		if len(f) < 7 || isID && f[2] != strconv.Itoa(id) || !isID && f[0] != name {
			return false
		}
		uid, uerr := strconv.Atoi(f[2])
		gid, gerr := strconv.Atoi(f[3])
		if uerr != nil || gerr != nil {
			return false
		}
		found = foundAccount{account{f[0], uid, gid, f[5]}, true}
		return true
	})
	switch {
	case err != nil && isID && errors.Is(err, os.ErrNotExist):
		return found, nil
	case err != nil:
		return found, fmt.Errorf("find user %s: %w", name, err)
	case !found.known && !isID:
		return found, fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	case found.known && (outOfRange(found.uid) || outOfRange(found.gid)):
		return found, fmt.Errorf("user %s: %w", name, errRange())
	}
	return found, nil
}

// findGroup looks up a group by number or name.
func findGroup(root imageRoot, name string) (int, error) {
	id, isID, err := parseID(name)
	if err != nil {
		return 0, fmt.Errorf("group %s: %w", name, err)
	}
	if isID {
		return id, nil
	}
	gid := -1
	err = scanLines(root, "/etc/group", func(f []string) bool {
		if len(f) < 3 || f[0] != name {
			return false
		}
		n, err := strconv.Atoi(f[2])
		if err == nil {
			gid = n
		}
		return err == nil
	})
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return 0, fmt.Errorf("find group %s: %w", name, err)
	case gid == -1:
		return 0, fmt.Errorf("unable to find group %s: no matching entries in group file", name)
	case outOfRange(gid):
		return 0, fmt.Errorf("group %s: %w", name, errRange())
	}
	return gid, nil
}

// groupsOf lists the groups that name is a member of.
func groupsOf(root imageRoot, name string) ([]int, error) {
	const maxGroups = 65536 // the kernel's NGROUPS_MAX
	var gids []int
	err := scanLines(root, "/etc/group", func(f []string) bool {
		if len(f) >= 4 && slices.Contains(strings.Split(f[3], ","), name) {
			if n, err := strconv.Atoi(f[2]); err == nil && !outOfRange(n) {
				gids = append(gids, n)
			}
		}
		return len(gids) >= maxGroups-1
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("find groups of %s: %w", name, err)
	}
	return gids, nil
}

// parseID reads a number. What begins like one but is none, or is out of range,
// is an error rather than a name: "-1" or "4294967296" must not become root.
func parseID(s string) (id int, isID bool, err error) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false, nil
	}
	if strings.Trim(digits, "0123456789") != "" {
		_, ferr := strconv.ParseFloat(s, 64)
		_, ierr := strconv.ParseInt(s, 0, 64)
		if ferr == nil || ierr == nil { // 1e3, 0x10
			return 0, false, errors.New("neither a name nor a decimal number")
		}
		return 0, false, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || outOfRange(n) {
		return 0, false, errRange()
	}
	return n, true, nil
}

func outOfRange(id int) bool { return id < 0 || id > maxUserID }

func errRange() error { return fmt.Errorf("uids and gids must be in range 0-%d", maxUserID) }

// scanLines calls f with the colon-separated fields of each line until it
// returns true. Bytes read are bounded.
func scanLines(root imageRoot, name string, f func(fields []string) bool) error {
	file, err := root.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	limited := &io.LimitedReader{R: file, N: maxAccounts + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if f(strings.Split(line, ":")) {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if limited.N == 0 {
		return fmt.Errorf("read %s: larger than %d bytes", name, maxAccounts)
	}
	return nil
}

// environ is the process's environment: HOME is added unless the image or the
// user set it.
func (s *stage) environ() []string {
	env := s.trusting(s.Spec.Process.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(slices.Clip(env), "HOME="+s.Who.Home)
	}
	return env
}

// getenv is the value that a program sees: the first of several.
func getenv(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// nameArg is a thread name for prctl.
func nameArg(name string) uintptr {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0
	}
	return uintptr(ptr(p))
}
