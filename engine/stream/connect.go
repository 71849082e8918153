package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Conn is a connection to a JetStream server.
type Conn = nats.Conn

// ConnectOptions says who we are to an external NATS server. Empty fields are not used.
type ConnectOptions struct {
	Name        string // in the server's list of connections
	Credentials string // file with a user's JWT and seed (.creds)
	CA          string // file with the certificates of authorities to trust, PEM
	Log         *slog.Logger
}

// Connect connects to an external NATS server or cluster, whose URLs are separated by commas. It waits until a server
// answers or ctx ends; from then on it reconnects by itself, for ever. No password of the URLs gets into logs or errors.
func Connect(ctx context.Context, urls string, o ConnectOptions) (*nats.Conn, error) {
	shown, err := redacted(urls)
	if err != nil {
		return nil, err
	}
	doing := func(err error) error { return fmt.Errorf("connecting to NATS at %s: %w", shown, unwrapURL(err)) }
	connected := make(chan struct{}, 1)
	options := []nats.Option{
		nats.Name(o.Name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second), nats.ReconnectBufSize(-1), nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2), nats.Timeout(2 * time.Second),
		nats.ConnectHandler(func(nc *nats.Conn) {
			o.Log.Info("connected to NATS", "server", nc.ConnectedUrlRedacted())
			connected <- struct{}{}
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Warn("the connection to NATS is lost, will reconnect", "err", unwrapURL(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { o.Log.Info("connected to NATS again", "server", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Log.Warn("NATS reports an error", "err", unwrapURL(err))
		}),
	}
	if o.Credentials != "" {
		options = append(options, nats.UserCredentials(o.Credentials))
	}
	if o.CA != "" {
		options = append(options, nats.RootCAs(o.CA))
	}
	nc, err := nats.Connect(urls, options...)
	if err != nil {
		return nil, doing(err)
	}
	patient := time.NewTimer(2 * time.Second)
	defer patient.Stop()
	for {
		select {
		case <-connected:
			return nc, nil
		case <-patient.C:
			o.Log.Warn("NATS does not answer yet, will go on trying", "server", shown, "err", unwrapURL(nc.LastError()))
		case <-ctx.Done():
			err := errors.Join(context.Cause(ctx), unwrapURL(nc.LastError()))
			nc.Close()
			return nil, doing(err)
		}
	}
}

// redacted returns the URLs without passwords and tokens.
func redacted(urls string) (string, error) {
	var shown []string
	for s := range strings.SplitSeq(urls, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return "", errors.New("the NATS URL is not valid: it has the form nats://user:password@host:4222, with special characters as in %40; several are separated by commas")
		}
		if u.User != nil {
			if _, has := u.User.Password(); has {
				u.User = url.UserPassword(u.User.Username(), "xxxxx")
			} else {
				u.User = url.User("xxxxx") // a token
			}
		}
		shown = append(shown, u.String())
	}
	return strings.Join(shown, ","), nil
}

// unwrapURL drops the URL that net/url's errors quote.
func unwrapURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}
