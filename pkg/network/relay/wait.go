package relay

import (
	"context"
	"time"
)

// Wait waits for d, as a server does after an error of its listener, or reports false
// at the end of ctx.
func Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
