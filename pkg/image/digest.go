package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const digestPrefix = "sha256:"

// checkDigest accepts "sha256:" and 64 lower-case hexadecimal digits, and
// nothing else: digests become file names and URL paths.
func checkDigest(s string) error {
	hexa, ok := strings.CutPrefix(s, digestPrefix)
	if !ok {
		if algo, _, found := strings.Cut(s, ":"); found && (algo == "sha512" || algo == "sha384") {
			return fmt.Errorf("%w: digest algorithm %s is not supported, only sha256", ErrInvalid, algo)
		}
		return fmt.Errorf("%w: digest %q is not sha256:<64 hexadecimal digits>", ErrInvalid, clip(s))
	}
	if len(hexa) != 2*sha256.Size || !isHex(hexa) {
		return fmt.Errorf("%w: digest %q is not sha256:<64 hexadecimal digits>", ErrInvalid, clip(s))
	}
	return nil
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, digestPrefix) }

// shortID is how people see a digest: docker's twelve digits.
func shortID(digest string) string {
	h := hexOf(digest)
	return h[:min(12, len(h))]
}

// clip bounds foreign text that goes into an error.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
