package manager

import (
	"context"
	"errors"

	"github.com/micropod/micropod/pkg/image"
)

// Login tries a user's password at a registry ("" is Docker Hub) and keeps it
// where docker does. plain is the file that holds it unencrypted, "" when a
// credential helper has it.
func (m *Manager) Login(ctx context.Context, server, user, password string) (plain string, err error) {
	plain, err = m.images.Login(ctx, server, user, password)
	return plain, imageError(err)
}

// StoredLogin tries what is kept for a registry. ok is false, without an error,
// when nothing is.
func (m *Manager) StoredLogin(ctx context.Context, server string) (user string, ok bool, err error) {
	user, err = m.images.StoredLogin(ctx, server)
	if errors.Is(err, image.ErrNoCredentials) {
		return "", false, nil
	}
	return user, true, imageError(err)
}

// Logout forgets what is kept for a registry.
func (m *Manager) Logout(ctx context.Context, server string) error {
	return imageError(m.images.Logout(ctx, server))
}
