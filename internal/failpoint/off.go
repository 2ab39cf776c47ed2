//go:build !failpoint

package failpoint

// Here does nothing in this build.
func Here(Point) {}

// HereOr does nothing in this build.
func HereOr(Point, func() int) {}

// Environ is empty in this build.
func Environ() []string { return nil }
