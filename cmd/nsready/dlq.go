package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// dlqCommands are the subcommands of dlq, in the order of its help.
var dlqCommands = []command{
	{"ls", "list dead letters, the newest first", runLettersList},
	{"show", "show one dead letter: the event, why it was refused, where in the queue it was", runLetterShow},
	{"replay", "send dead letters to the collector again; those that it acknowledges are deleted", runLettersReplay},
	{"purge", "delete dead letters", runLettersPurge},
}

func runDLQ(ctx context.Context, s *streams, args []string) error {
	return runSub(ctx, s, args, "dlq", "Dead letters are acknowledged events that the database refused, with the reason.",
		"nsready dlq replay -where reason=unknown_device,since=2h -dry-run", dlqCommands)
}

// dlqFlags are the flags that the subcommands of dlq share.
type dlqFlags struct {
	*flags
	target target
	where  letterWhere
	json   bool
}

func newDLQFlags(s *streams, usage, help string) *dlqFlags {
	f := &dlqFlags{flags: newFlags(s, "dlq "+usage, help)}
	f.target.registerDatabase(f.flags)
	f.jsonVar(&f.json, "print the outcome as JSON")
	return f
}

func (f *dlqFlags) registerWhere() {
	f.Var(&f.where, "where", "`CONDITIONS`, separated by commas, that must all hold: reason=22003, device=UUID or customer/project/site/device,\n"+
		"customer=NAME, since=2h or a date, until=2h or a date, id=7 or id=1..5; a value with a comma goes in double quotes")
}

// run does the work of a subcommand with the database.
func (f *dlqFlags) run(ctx context.Context, s *streams, work func(db *store.Store) error) error {
	db, err := f.target.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return work(db)
}

// letterWhere is the value of -where.
type letterWhere struct {
	text   string
	filter store.LetterFilter
}

func (w *letterWhere) String() string { return w.text }

func (w *letterWhere) Set(text string) error {
	w.text, w.filter = text, store.LetterFilter{}
	return eachCondition(text, w.condition)
}

// eachCondition reads conditions KEY=VALUE with commas between them, each key once; a value may stand in double quotes.
func eachCondition(text string, take func(key, value string) error) error {
	seen := map[string]bool{}
	for rest := text; ; {
		key, value, ok := strings.Cut(rest, "=")
		key = strings.TrimSpace(key)
		if !ok {
			return fmt.Errorf("%q is no condition: want KEY=VALUE", rest)
		}
		if strings.HasPrefix(value, `"`) {
			quoted, err := strconv.QuotedPrefix(value)
			if err == nil {
				rest = value[len(quoted):]
				value, err = strconv.Unquote(quoted)
			}
			if err != nil || rest != "" && rest[0] != ',' {
				return fmt.Errorf("the quotes in the value of %s do not match", key)
			}
		} else if end := strings.IndexByte(value, ','); end >= 0 {
			value, rest = value[:end], value[end:]
		} else {
			rest = ""
		}
		if seen[key] {
			return fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if value == "" {
			return fmt.Errorf("%s has no value", key)
		}
		if err := take(key, value); err != nil {
			return err
		}
		if rest == "" {
			return nil
		}
		rest = rest[1:]
	}
}

func (w *letterWhere) condition(key, value string) (err error) {
	f := &w.filter
	switch key {
	case "reason":
		f.Reason = value
	case "device":
		f.Device = value
	case "customer":
		f.Customer = value
	case "since":
		f.Since, err = parseMoment(value, time.Now())
	case "until":
		f.Until, err = parseMoment(value, time.Now())
	case "id":
		first, last, many := strings.Cut(value, "..")
		if !many {
			last = first
		}
		var wrong error
		if f.FirstID, err = strconv.ParseInt(first, 10, 64); err == nil {
			f.LastID, wrong = strconv.ParseInt(last, 10, 64)
		}
		if err != nil || wrong != nil || f.FirstID < 1 || f.LastID < f.FirstID {
			return fmt.Errorf("id: want a number or a range such as 1..5, not %q", value)
		}
	default:
		return fmt.Errorf("there is no condition %q: want reason, device, customer, since, until or id", key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func runLettersList(ctx context.Context, s *streams, args []string) error {
	f := newDLQFlags(s, "ls [flags]", `
List dead letters, the newest first.

Example:
  nsready dlq ls -where customer="Acme Mills",since=2h`)
	f.registerWhere()
	limit := f.Int("limit", 50, "the most to list")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if *limit < 1 {
		return errors.New("-limit: want 1 or more")
	}
	return f.run(ctx, s, func(db *store.Store) error {
		total, _, err := db.CountLetters(ctx, f.where.filter)
		if err != nil {
			return err
		}
		list, err := db.Letters(ctx, f.where.filter, true, *limit)
		if err != nil {
			return err
		}
		if f.json {
			return writeJSON(s.stdout, struct {
				FormatVersion string         `json:"format_version"`
				Total         int64          `json:"total"`
				Letters       []store.Letter `json:"letters"`
			}{formatVersion, total, append([]store.Letter{}, list...)})
		}
		return printLetters(s.stdout, list, total)
	})
}

func printLetters(w io.Writer, list []store.Letter, total int64) error {
	var out bytes.Buffer
	if total == 0 {
		fmt.Fprintln(&out, "No dead letters.")
	} else {
		wide := len("device")
		for i := range list {
			wide = max(wide, len([]rune(letterDevice(&list[i]))))
		}
		fmt.Fprintf(&out, "%8s  %-20s  %-14s  %-*s  %s\n", "id", "since", "reason", wide, "device", "message")
		for i := range list {
			l := &list[i]
			message := []rune(clean(l.Message))
			if len(message) > 100 {
				message = append(message[:99], '…')
			}
			fmt.Fprintf(&out, "%8d  %-20s  %-14s  %-*s  %s\n", l.ID, l.CreatedAt.Format(time.RFC3339), clean(l.Reason), wide, letterDevice(l), string(message))
		}
		if more := total - int64(len(list)); more > 0 {
			fmt.Fprintf(&out, "and %d more: list them with -limit %d\n", more, total)
		}
	}
	_, err := w.Write(legible(out.Bytes()))
	return err
}

// letterDevice names the device of a dead letter.
func letterDevice(l *store.Letter) string {
	switch {
	case l.Device != "":
		return clean(l.Device)
	case l.Pending != "":
		return clean(l.Pending)
	case l.DeviceID != nil:
		return l.DeviceID.String()
	}
	return "(a whole frame)"
}

func runLetterShow(ctx context.Context, s *streams, args []string) error {
	f := newDLQFlags(s, "show [flags] ID", `
Show one dead letter: the event as it was sent, why the database refused it, and where in the queue it was.

Example:
  nsready dlq show 17`)
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("which dead letter? 'nsready dlq ls' lists their ids")
	}
	id, err := strconv.ParseInt(rest[0], 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not the id of a dead letter: 'nsready dlq ls' lists them", rest[0])
	}
	return f.run(ctx, s, func(db *store.Store) error {
		l, err := db.Letter(ctx, id)
		if err != nil {
			return err
		}
		if f.json {
			return writeJSON(s.stdout, l)
		}
		var event bytes.Buffer
		if err := json.Indent(&event, l.Event, "", "  "); err != nil {
			return fmt.Errorf("dead letter %d: %w", id, err)
		}
		lines := strings.Split(event.String(), "\n")
		for i := range lines {
			lines[i] = clean(lines[i])
		}
		_, err = fmt.Fprintf(s.stdout, "dead letter  %d\nsince        %s\ndevice       %s\nreason       %s\nmessage      %s\nqueue        epoch %s, partition %d, frame %d, event %d\n\n%s\n",
			l.ID, l.CreatedAt.Format(time.RFC3339), letterDevice(&l), clean(l.Reason), clean(l.Message), clean(l.Epoch), l.Partition, l.Seq, l.Index, strings.Join(lines, "\n"))
		return err
	})
}

func runLettersPurge(ctx context.Context, s *streams, args []string) error {
	f := newDLQFlags(s, "purge [flags]", `
Delete dead letters. What their events held is gone; the ledger goes on counting them as dead.
It takes -where or -all, and asks before it deletes; without a terminal, and with -json, -yes is required.

Example:
  nsready dlq purge -where reason=unknown_device,until=30d`)
	f.registerWhere()
	all := f.Bool("all", false, "delete all dead letters")
	yes := f.Bool("yes", false, "do not ask")
	dry := f.Bool("dry-run", false, "only say how many would be deleted")
	limit := f.Int64("limit", 0, "the most to delete, the oldest first (default all)")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	switch {
	case *all == (f.where.text != ""):
		return errors.New("which dead letters? Name them with -where, or take -all")
	case *limit < 0:
		return errors.New("-limit: want 1 or more")
	case *limit == 0:
		*limit = math.MaxInt64
	}
	return f.run(ctx, s, func(db *store.Store) error {
		n, newest, err := db.CountLetters(ctx, f.where.filter)
		if err != nil {
			return err
		}
		n = min(n, *limit)
		filter := f.where.filter // what has come since is not meant
		if filter.LastID == 0 || newest < filter.LastID {
			filter.LastID = newest
		}
		purged := int64(0)
		if n > 0 && !*dry {
			if !*yes {
				if f.json || !isTerminal(s.stdin) {
					return fmt.Errorf("%s would be deleted, and there is nobody to ask: to delete them, add -yes", letters(n))
				}
				if err := confirm(ctx, s, fmt.Sprintf("Delete %s?", letters(n))); err != nil {
					return err
				}
			}
			if purged, err = db.PurgeLetters(ctx, filter, *limit); err != nil {
				return err
			}
		}
		if f.json {
			return writeJSON(s.stdout, struct {
				FormatVersion string `json:"format_version"`
				DryRun        bool   `json:"dry_run"`
				Matched       int64  `json:"matched"`
				Purged        int64  `json:"purged"`
			}{formatVersion, *dry, n, purged})
		}
		if *dry {
			_, err = fmt.Fprintf(s.stdout, "%s would be deleted.\n", letters(n))
		} else {
			_, err = fmt.Fprintf(s.stdout, "%s deleted.\n", letters(purged))
		}
		return err
	})
}

func letters(n int64) string {
	if n == 1 {
		return "1 dead letter"
	}
	return fmt.Sprintf("%d dead letters", n)
}

// replayView is the outcome of a replay.
type replayView struct {
	FormatVersion string       `json:"format_version"`
	DryRun        bool         `json:"dry_run"`
	Matched       int64        `json:"matched"`
	Replayed      int64        `json:"replayed"`       // or, in a dry run, would be sent
	Kept          int64        `json:"kept"`           // could not be sent, or were refused
	Letters       []keptLetter `json:"kept_letters"`   // the first of them
	Left          int64        `json:"left,omitempty"` // not tried, because of an error or -limit
}

// keptLetter is a dead letter that a replay left where it was.
type keptLetter struct {
	ID      int64  `json:"id"`
	Device  string `json:"device"`
	Code    string `json:"code"` // not_an_event, or the collector's
	Message string `json:"message"`
}

const (
	replayBatch = 100     // events a request: the collector names so many refused ones
	replayBytes = 4 << 20 // of a request, unless one event is larger
	maxKept     = 1000    // in a replayView
)

func runLettersReplay(ctx context.Context, s *streams, args []string) error {
	f := newDLQFlags(s, "replay [flags]", `
Send the events of dead letters to the collector, in the order in which they died. A letter is deleted when the collector
has acknowledged its event; what it refuses stays, and the reason is shown. The replay may be interrupted and run again.
An event replayed is like one sent now: where its device has sent other values for the same time since, the replayed
ones win. The exit code is 0 when no letter stays, 2 when some do, and 1 when the replay could not be finished.

Example:
  nsready dlq replay -where reason=unknown_device,device=acme/mill/north/press-01`)
	f.registerWhere()
	collector := f.String("target", "", "`URL` of the collector\n(default: the one of the 'nsready up' that runs on -data)")
	limit := f.Int64("limit", 0, "the most to replay, the oldest first (default all)")
	dry := f.Bool("dry-run", false, "send nothing, only say what would be sent")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if *limit < 0 {
		return errors.New("-limit: want 1 or more")
	}
	return f.run(ctx, s, func(db *store.Store) error {
		r := replay{db: db, filter: f.where.filter, dry: *dry, progress: func(replayView) {}}
		if !*dry {
			var err error
			if r.url, err = collectorURL(*collector, f.target.data); err != nil {
				return fmt.Errorf("which collector? %w URL", err)
			}
		}
		done := func() {}
		if isTerminal(s.stderr) {
			r.progress = func(v replayView) {
				fmt.Fprintf(s.stderr, "\r\033[K%d of %s replayed, %d kept", v.Replayed, letters(v.Matched), v.Kept)
			}
			done = func() { fmt.Fprint(s.stderr, "\r\033[K") }
		}
		failed := r.run(ctx, *limit)
		done()
		var err error
		switch {
		case f.json && failed == nil: // an error is the document then
			err = writeJSON(s.stdout, r.view)
		case !f.json:
			err = printReplay(s.stdout, r.view)
		}
		switch {
		case failed != nil:
			return fmt.Errorf("%d replayed, %d kept: %w", r.view.Replayed, r.view.Kept, failed)
		case err == nil && r.view.Kept > 0:
			return exit(exitNo)
		}
		return err
	})
}

func printReplay(w io.Writer, v replayView) error {
	var out bytes.Buffer
	for _, k := range v.Letters {
		fmt.Fprintf(&out, "kept %d  %s  %s: %s\n", k.ID, clean(k.Device), clean(k.Code), clean(k.Message))
	}
	if more := v.Kept - int64(len(v.Letters)); more > 0 {
		fmt.Fprintf(&out, "and %d more are kept\n", more)
	}
	what := "replayed"
	if v.DryRun {
		what = "would be sent"
	}
	fmt.Fprintf(&out, "%s %s, %d kept", letters(v.Replayed), what, v.Kept)
	if v.Left > 0 {
		fmt.Fprintf(&out, ", %d not tried", v.Left)
	}
	fmt.Fprintln(&out, ".")
	if v.Replayed > 0 && !v.DryRun {
		fmt.Fprintln(&out, "What the database refuses again comes back as a new dead letter: 'nsready dlq ls' shows it.")
	}
	_, err := w.Write(out.Bytes())
	return err
}

// replay is a run of dlq replay.
type replay struct {
	db       *store.Store
	url      string
	filter   store.LetterFilter
	dry      bool
	progress func(replayView)
	view     replayView
}

// run replays up to limit letters, 0 for all. Letters that come meanwhile are not its concern.
func (r *replay) run(ctx context.Context, limit int64) error {
	n, newest, err := r.db.CountLetters(ctx, r.filter)
	if err != nil {
		return err
	}
	r.view = replayView{FormatVersion: formatVersion, DryRun: r.dry, Matched: n, Letters: []keptLetter{}}
	todo := n
	if limit > 0 {
		todo = min(todo, limit)
	}
	if r.filter.LastID == 0 || newest < r.filter.LastID {
		r.filter.LastID = newest
	}
	defer func() { r.view.Left = max(0, n-r.view.Replayed-r.view.Kept) }()
	for todo > 0 {
		list, err := r.db.Letters(ctx, r.filter, false, int(min(todo, replayBatch)))
		if err != nil || len(list) == 0 {
			return err
		}
		taken, err := r.batch(ctx, list)
		if err != nil {
			return err
		}
		todo -= int64(taken)
		r.filter.FirstID = list[taken-1].ID + 1
		r.progress(r.view)
		if r.filter.FirstID > r.filter.LastID {
			return nil
		}
	}
	return nil
}

// batch replays the first letters of a list, as many as fit in a request, and returns how many those were.
func (r *replay) batch(ctx context.Context, list []store.Letter) (taken int, err error) {
	var body bytes.Buffer
	var sent []*store.Letter
	for i := range list {
		l := &list[i]
		if l.Reason == telemetry.PendingDevice {
			r.keep(l, l.Reason, "Its device is not registered; once it is, the event is replayed without this command.")
			taken++
			continue
		}
		line, err := replayLine(l)
		if err != nil {
			r.keep(l, "not_an_event", err.Error())
			taken++
			continue
		}
		if len(sent) > 0 && body.Len()+len(line) > replayBytes {
			break
		}
		body.Write(line)
		body.WriteByte('\n')
		sent = append(sent, l)
		taken++
	}
	if len(sent) == 0 {
		return taken, nil
	}
	if r.dry {
		r.view.Replayed += int64(len(sent))
		return taken, nil
	}
	refused, err := r.send(ctx, body.Bytes(), len(sent))
	if err != nil {
		return 0, err
	}
	var acknowledged []int64
	for i, l := range sent {
		if why, ok := refused[i+1]; ok {
			r.keep(l, why.Code, why.Message)
		} else {
			acknowledged = append(acknowledged, l.ID)
		}
	}
	// An interrupt does not come between an acknowledgement and what follows from it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if _, err := r.db.DeleteLetters(ctx, acknowledged); err != nil {
		return 0, fmt.Errorf("%w: the collector has acknowledged the events of %d of them, which are harmless to replay once more", err, len(acknowledged))
	}
	r.view.Replayed += int64(len(acknowledged))
	return taken, nil
}

func (r *replay) keep(l *store.Letter, code, message string) {
	r.view.Kept++
	if len(r.view.Letters) < maxKept {
		r.view.Letters = append(r.view.Letters, keptLetter{l.ID, letterDevice(l), code, message})
	}
}

// replayLine is a letter's event as the collector takes it.
func replayLine(l *store.Letter) ([]byte, error) {
	var event map[string]json.RawMessage
	if err := json.Unmarshal(l.Event, &event); err != nil {
		return nil, fmt.Errorf("the letter holds no event: %w", err)
	}
	if encoded, ok := event["base64"]; ok {
		var text []byte
		event = nil
		if err := errors.Join(json.Unmarshal(encoded, &text), json.Unmarshal(text, &event)); err != nil {
			return nil, fmt.Errorf("the letter holds no event: %w", err)
		}
	}
	if _, ok := event["frame"]; ok {
		return nil, errors.New("it is a whole frame that could not be read: there are no events to send")
	}
	if _, ok := event["device"]; ok {
		if err := replayPoint(l, event); err != nil {
			return nil, err
		}
	}
	delete(event, "received_at")
	if string(event["event_id"]) == `""` {
		delete(event, "event_id")
	}
	event["project_id"] = json.RawMessage(strconv.Quote(l.ProjectID.String()))
	event["site_id"] = json.RawMessage(strconv.Quote(l.SiteID.String()))
	return json.Marshal(event)
}

// replayPoint makes an event of what was a point, whose keys are names of fields.
func replayPoint(l *store.Letter, event map[string]json.RawMessage) error {
	if l.DeviceID == nil {
		return errors.New("the letter does not tell the device's id")
	}
	var metrics []map[string]json.RawMessage
	if err := json.Unmarshal(event["metrics"], &metrics); err != nil {
		return fmt.Errorf("the letter holds no event: %w", err)
	}
	for _, m := range metrics {
		var name string
		if err := json.Unmarshal(m["parameter_key"], &name); err != nil {
			return fmt.Errorf("the letter holds no event: %w", err)
		}
		key, err := json.Marshal(registry.ParameterKey(l.ProjectID, name))
		if err != nil {
			return err
		}
		m["parameter_key"] = key
	}
	delete(event, "device")
	delete(event, "measurement")
	event["device_id"] = json.RawMessage(strconv.Quote(l.DeviceID.String()))
	var err error
	event["metrics"], err = json.Marshal(metrics)
	return err
}

// refusal is why the collector does not take an event.
type refusal struct {
	Line          int
	Code, Message string
}

// errUnclear says that an answer does not tell which events were acknowledged.
var errUnclear = errors.New("the collector's answer does not say which events it took")

// send sends n events and returns the refused ones by their lines. It waits when the collector asks for that, for a while.
func (r *replay) send(ctx context.Context, body []byte, n int) (map[int]refusal, error) {
	const patience = 2 * time.Minute
	for began := time.Now(); ; {
		status, header, text, err := r.post(ctx, body)
		if err != nil {
			return nil, err
		}
		switch status {
		case http.StatusOK, http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			return refusals(text, n)
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			seconds, err := strconv.Atoi(header.Get("Retry-After"))
			if err != nil || seconds < 1 {
				seconds = 1
			}
			pause := time.Duration(seconds) * time.Second
			if time.Since(began)+pause > patience {
				return nil, fmt.Errorf("the collector takes nothing just now: %d %s", status, text)
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(pause):
			}
		default:
			return nil, fmt.Errorf("the collector at %s answers %d: %.200s", r.url, status, text)
		}
	}
}

func (r *replay) post(ctx context.Context, body []byte) (status int, header http.Header, text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/ingest", bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("-target: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("sending to the collector: %w", err)
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return 0, nil, nil, fmt.Errorf("reading the collector's answer: %w", err)
	}
	return resp.StatusCode, resp.Header, text, nil
}

// refusals reads which of n events an answer refuses. Each event must be accounted for.
func refusals(text []byte, n int) (map[int]refusal, error) {
	var answer struct {
		Accepted, Rejected *int
		Errors             []refusal
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Accepted == nil || answer.Rejected == nil {
		return nil, fmt.Errorf("%w: %.200s", errUnclear, text)
	}
	refused := map[int]refusal{}
	for _, e := range answer.Errors {
		if e.Line < 1 || e.Line > n {
			return nil, fmt.Errorf("%w: it refuses line %d of %d", errUnclear, e.Line, n)
		}
		refused[e.Line] = e
	}
	if len(refused) != *answer.Rejected || *answer.Accepted+*answer.Rejected != n {
		return nil, fmt.Errorf("%w: of %d it took %d and refused %d, of which it names %d", errUnclear, n, *answer.Accepted, *answer.Rejected, len(refused))
	}
	return refused, nil
}
