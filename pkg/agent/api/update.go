package api

// MethodUpdate changes the limits of a container that runs.
const MethodUpdate Method = "update"

// UpdateRequest changes the limits of a container that runs.
type UpdateRequest struct {
	ID string `json:"id"`
	// Resources of the OCI runtime spec: memory, pids, cpu. What is zero stays as
	// it is; negative is no limit.
	Resources *Resources `json:"resources"`
}
