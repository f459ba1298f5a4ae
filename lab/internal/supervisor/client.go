package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// answerLimit is far above any status, in bytes.
const answerLimit = 8 << 20

// Client asks and tells a running lab. It is safe for concurrent use.
type Client struct {
	dir  *os.File
	http *http.Client
}

// NewClient returns a client of the lab in a folder; whether it runs is seen by
// the first call. The client must be closed.
func NewClient(f cluster.Folder) (*Client, error) {
	dir, err := os.Open(f.Run())
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket(dir))
	}
	return &Client{dir, &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Close gives the client up.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.dir.Close()
}

// Status tells what the lab is like now.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", &s)
	return &s, err
}

// Down tells the lab to end. It ends some seconds later.
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/down", new(struct{}))
}

// Do stops, starts or restarts the components that are named COMPONENT, NODE or
// NODE/COMPONENT, one after another, and returns their full names.
func (c *Client) Do(ctx context.Context, verb string, names []string) ([]string, error) {
	var done []string
	err := c.call(ctx, http.MethodPost, "/"+verb+"?"+url.Values{"name": names}.Encode(), &done)
	return done, err
}

func (c *Client) call(ctx context.Context, method, path string, value any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusOK {
		return json.Unmarshal(body, value)
	}
	var unknown UnknownError
	if response.StatusCode == http.StatusNotFound && json.Unmarshal(body, &unknown) == nil && unknown.Name != "" {
		return &unknown
	}
	var f failure
	if err := json.Unmarshal(body, &f); err != nil || f.Error == "" {
		return fmt.Errorf("the lab answers %s", response.Status)
	}
	return errors.New(f.Error)
}
