//go:build linux

// Package firewalld speaks to firewalld over D-Bus about one thing: which zone a
// link is in. What it adds is there at run time only, as firewalld means it for
// links that come and go; firewalld forgets it when it reloads, and says so.
package firewalld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names of firewalld's interface (firewalld.dbus(5)).
const (
	name      = "org.fedoraproject.FirewallD1"
	zones     = name + ".zone"
	exception = name + ".Exception"
)

// patience is how long firewalld has for an answer; it is slow when it loads
// its rules.
const patience = 10 * time.Second

// Client is a connection to the system's bus, made when it is first needed and
// again when it broke. The zero Client is ready.
type Client struct {
	mu   sync.Mutex
	conn *dbus.Conn
	news chan string
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	if err != nil {
		return fmt.Errorf("close bus: %w", err)
	}
	return nil
}

// bus is the connection, with the signals asked for.
func (c *Client) bus() (*dbus.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Connected() {
		return c.conn, nil
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	err = errors.Join(
		conn.AddMatchSignal(dbus.WithMatchSender(name), dbus.WithMatchInterface(name), dbus.WithMatchMember("Reloaded")),
		conn.AddMatchSignal(dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen to firewalld: %w", err), conn.Close())
	}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	go c.hear(signals, c.newsOf())
	c.conn = conn
	return conn, nil
}

// newsOf is the channel that Watch reads; the caller holds the lock.
func (c *Client) newsOf() chan string {
	if c.news == nil {
		c.news = make(chan string, 1)
	}
	return c.news
}

// hear passes signals on until the connection ends. One that waits already says
// as much as two.
func (c *Client) hear(signals <-chan *dbus.Signal, news chan<- string) {
	for s := range signals {
		why := "firewalld reloaded its rules"
		if strings.HasSuffix(s.Name, ".NameOwnerChanged") {
			why = "firewalld came or went"
		}
		select {
		case news <- why:
		default:
		}
	}
}

// Watch sends why whenever firewalld may have forgotten what it was told, until
// ctx ends. It makes no connection by itself.
func (c *Client) Watch(ctx context.Context) <-chan string {
	c.mu.Lock()
	news := c.newsOf()
	c.mu.Unlock()
	out := make(chan string)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case why := <-news:
				select {
				case out <- why:
				case <-ctx.Done():
				}
			}
		}
	}()
	return out
}

// Running reports whether firewalld is on the bus, as a process of the network
// namespace of the caller: it rules its own only.
func (c *Client) Running(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := c.bus()
	if err != nil {
		return false
	}
	var pid uint32
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, name).Store(&pid); err != nil {
		return false
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false
	}
	own, err := os.Readlink("/proc/self/ns/net")
	return err == nil && own == theirs
}

// ZoneOf is the zone of a link, "" when it is in none.
func (c *Client) ZoneOf(ctx context.Context, dev string) (string, error) {
	var zone string
	if err := c.call(ctx, &zone, "getZoneOfInterface", dev); err != nil {
		return "", fmt.Errorf("ask firewalld for the zone of %s: %w", dev, err)
	}
	return zone, nil
}

// Add puts a link into a zone. One that is in a zone stays there: somebody put
// it there.
func (c *Client) Add(ctx context.Context, zone, dev string) error {
	err := c.call(ctx, nil, "addInterface", zone, dev)
	if err != nil && !says(err, "ALREADY_ENABLED", "ZONE_CONFLICT", "ZONE_ALREADY_SET") {
		return fmt.Errorf("put %s into zone %s of firewalld: %w", dev, zone, err)
	}
	return nil
}

// Remove takes a link out of a zone; one that is not in it is no error.
func (c *Client) Remove(ctx context.Context, zone, dev string) error {
	err := c.call(ctx, nil, "removeInterface", zone, dev)
	if err != nil && !says(err, "NOT_ENABLED", "UNKNOWN_INTERFACE", "ZONE_CONFLICT") {
		return fmt.Errorf("take %s out of zone %s of firewalld: %w", dev, zone, err)
	}
	return nil
}

// call asks firewalld's zones; result may be nil.
func (c *Client) call(ctx context.Context, result any, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := c.bus()
	if err != nil {
		return err
	}
	call := conn.Object(name, "/org/fedoraproject/FirewallD1").CallWithContext(ctx, zones+"."+method, 0, args...)
	if call.Err != nil || result == nil {
		return call.Err
	}
	return call.Store(result)
}

// says reports whether firewalld refused for one of the reasons, with which its
// message begins.
func says(err error, reasons ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) || e.Name != exception || len(e.Body) == 0 {
		return false
	}
	text, _ := e.Body[0].(string)
	for _, r := range reasons {
		if text == r || strings.HasPrefix(text, r+":") {
			return true
		}
	}
	return false
}
