package image

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
)

// Limits on the list of a repository's tags.
const (
	maxTags     = 10_000
	maxTagPages = 1_000
)

// RemoteTags lists the names, in docker's short form, that a repository has in
// its registry. ref has no tag and no digest.
func (s *Store) RemoteTags(ctx context.Context, ref string) ([]string, error) {
	t, err := parseTarget(ref)
	if err != nil {
		return nil, err
	}
	if t.kind != fromRegistry {
		return nil, fmt.Errorf("%w: %q is no name in a registry", ErrReference, clip(ref))
	}
	m, err := s.openRemote(t)
	if err != nil {
		return nil, err
	}
	defer m.close()
	var names []string
	err = m.each(ctx, (*place).resolves, func(r *repository) (err error) {
		names, err = r.tags(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", t.repository(), err)
	}
	return names, nil
}

func (r *repository) tags(ctx context.Context) ([]string, error) {
	var names []string
	next := r.url("tags", "list")
	for page := 0; next != ""; page++ {
		var tags []string
		err := r.s.retry(ctx, func(ctx context.Context) (err error) {
			tags, next, err = r.tagPage(ctx, next)
			return err
		})
		if err != nil {
			return nil, r.explain(err)
		}
		for _, tag := range tags {
			named, err := reference.WithTag(reference.TrimNamed(r.t.named), tag)
			if err != nil {
				return nil, fmt.Errorf("%w: tag %q: %w", ErrInvalid, printable(tag), err)
			}
			names = append(names, target{named: named}.String())
		}
		if len(names) > maxTags || page > maxTagPages {
			return nil, fmt.Errorf("%w: the list of tags has no end", ErrInvalid)
		}
	}
	return names, nil
}

// tagPage reads one page of the list, and where the next one is. On an error
// next is the page itself, to be asked for again.
func (r *repository) tagPage(ctx context.Context, at string) (tags []string, next string, err error) {
	resp, err := r.send(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, at, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, at, newStatusError(resp)
	}
	raw, err := readDocument(resp.Body)
	if err != nil {
		return nil, at, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, at, fmt.Errorf("%w: decode list of tags: %w", ErrInvalid, err)
	}
	next, err = nextPage(resp)
	return list.Tags, next, err
}

// nextPage reads the Link header. It leads nowhere but to the same host.
func nextPage(resp *http.Response) (string, error) {
	link, _, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	if !ok {
		return "", nil
	}
	u, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("%w: next page of tags: %s", ErrInvalid, printable(err.Error()))
	}
	u = resp.Request.URL.ResolveReference(u)
	if u.Host != resp.Request.URL.Host {
		return "", fmt.Errorf("%w: the next page of tags is on another host, %s", ErrInvalid, printable(u.Host))
	}
	return u.String(), nil
}
