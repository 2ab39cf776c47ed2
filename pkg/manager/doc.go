// Package manager orchestrates: images, containers and their VMs, one file per
// verb. It knows no terminal and no HTTP; the CLI and later servers call it in
// process. The files and locks under its root are the shared truth, so any
// number of processes may use one root at the same time.
package manager
