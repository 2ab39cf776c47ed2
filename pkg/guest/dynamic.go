//go:build cgo

package guest

// needsLoader says that this program, to be executed again, needs a loader and
// libraries at their paths. Those of the guest are not in a container's root.
const needsLoader = true
