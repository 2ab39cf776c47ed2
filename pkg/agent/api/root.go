package api

// Methods of containers that have come into a guest whose first container runs.
const (
	// MethodRoot makes the root file system of one more container. It lasts until
	// MethodRelease, or the end of the control connection that it came on: what
	// runs in it is killed then.
	MethodRoot Method = "root"
	// MethodRelease ends it. When it is answered, nothing uses its disks.
	MethodRelease Method = "release"
)

// RootRequest makes a root file system of its own for a container that is to be
// started; the first one's is that of SetupRequest.
type RootRequest struct {
	ID   string `json:"id"`
	Root Root   `json:"root"`
}

// ReleaseRequest kills what runs in a root file system of MethodRoot, writes its
// disk back and takes it away.
type ReleaseRequest struct {
	ID string `json:"id"`
}
