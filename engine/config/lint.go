package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/nsready/nsready/engine/registry"
)

// Lint reads the declaration at path as Load does, and warns of what is allowed and probably a mistake. When there is an
// error, there are no warnings.
//
// A comment "# nolint:CODE reason", or with several codes separated by commas, silences findings on its line, or, where it
// stands alone, on the next line that is no comment.
func Lint(path string, inputs ...Input) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	l := newLoader()
	l.lints = true
	snapshot, sources, diags := l.load(path, inputs...)
	if !diags.HasErrors() {
		diags = l.lint(snapshot)
	}
	return snapshot, sources, diags
}

// rules are what lint looks for, by the codes of their findings. The explanations say why.
var rules = []struct {
	code  string
	check func(*linter)
}{
	{"NSL0001", lintDeadbands},
	{"NSL0002", lintUnreachable},
	{"NSL0003", lintExceeded},
	{"NSL0004", lintSeverities},
	{"NSL0005", lintRetention},
	{"NSL0006", lintDevicesWithoutParameters},
	{"NSL0007", lintDevicesWithoutInterval},
	{"NSL0008", lintUnsentParameters},
	{"NSL0009", lintUnits},
	{"NSL0010", lintCase},
	{"NSL0011", lintBlanks},
	{"NSL0012", lintUnusedTemplates},
	{"NSL0013", lintUnusedLocals},
	{"NSL0014", lintAcceptedRanges},
	{"NSL0015", lintRates},
	{"NSL0016", lintSecrets},
	{"NSL0017", lintReadable},
	{"NSL0020", lintQuality},
	{"NSL0021", lintStaleness},
}

// Codes of findings about the comments that silence others.
const (
	codeInvalidNolint = "NSL0018"
	codeUnusedNolint  = "NSL0019"
)

// linter looks over what was loaded without an error.
type linter struct {
	*loader
	s          *registry.Snapshot
	code       string                            // of the rule at work
	written    map[*hcl.Range]*block             // by the ranges of origins; without devices that were parsed apart
	parameters map[string]*registry.Parameter    // by path
	thresholds map[string][]*registry.Threshold  // by their parameter's path
	seen       map[finding]bool                  // a template in two projects has its mistakes once
	secrets    map[string]bool                   // files with secrets
	mode       func(string) (os.FileMode, error) // of a file
}

func (l *loader) lint(s *registry.Snapshot) hcl.Diagnostics {
	x := &linter{loader: l, s: s, written: map[*hcl.Range]*block{}, parameters: map[string]*registry.Parameter{},
		thresholds: map[string][]*registry.Threshold{}, seen: map[finding]bool{}, secrets: map[string]bool{},
		mode: func(name string) (os.FileMode, error) {
			info, err := os.Stat(name)
			if err != nil {
				return 0, err
			}
			return info.Mode(), nil
		}}
	var walk func([]*block)
	walk = func(list []*block) {
		for _, b := range list {
			x.written[b.at] = b
			walk(b.blocks)
		}
	}
	for _, m := range x.allModules() {
		walk(m.blocks)
	}
	for _, p := range s.Parameters {
		x.parameters[p.Addr.Path] = p
	}
	for _, t := range s.Thresholds {
		x.thresholds[t.Addr.ParentPath()] = append(x.thresholds[t.Addr.ParentPath()], t)
	}
	for _, r := range rules {
		x.code = r.code
		r.check(x)
	}
	l.sortDiags()
	x.silence()
	return l.diags
}

// finding is what two findings don't have in common.
type finding struct {
	code, file string
	at         int
	element    any // of for_each: its key
	text       string
}

// allModules returns the declaration's own files and the modules that it uses.
func (l *loader) allModules() []*module {
	list := []*module{l.root}
	for _, key := range slices.SortedFunc(maps.Keys(l.modules), func(a, b moduleKey) int {
		return cmp.Or(strings.Compare(a.dir, b.dir), strings.Compare(a.place, b.place))
	}) {
		if m := l.modules[key]; m != nil {
			list = append(list, m)
		}
	}
	return list
}

// warn reports an attribute of a declared object, or its block when the attribute is not set.
func (x *linter) warn(addr registry.Address, attr, detail string, args ...any) *hcl.Diagnostic {
	from := x.declaredAt(addr)
	if written := x.attribute(from.rng, attr); written != nil {
		return x.warnAt(written.Expr.Range(), from.in, detail, args...)
	}
	return x.warnAt(*from.rng, from.in, detail, args...)
}

func (x *linter) warnAt(rng hcl.Range, in *each, detail string, args ...any) *hcl.Diagnostic {
	text := fmt.Sprintf(detail, args...)
	key := finding{code: x.code, file: rng.Filename, at: rng.Start.Byte, text: text}
	if in != nil {
		key.element = in.key
	}
	if x.seen[key] {
		return &hcl.Diagnostic{}
	}
	x.seen[key] = true
	d := x.report(rng, in, summaryOf(x.code), "%s", text)
	d.Severity = hcl.DiagWarning
	return d
}

// isSet reports whether the block that declares an object sets an attribute, even to "".
func (x *linter) isSet(addr registry.Address, attr string) bool {
	return x.attribute(x.declaredAt(addr).rng, attr) != nil
}

// attribute returns what the block at a place sets, or nil.
func (x *linter) attribute(of *hcl.Range, name string) *hcl.Attribute {
	if b := x.written[of]; b != nil {
		return b.attrs[name]
	}
	// It is a device that was parsed apart, and not kept.
	src := x.sources.Files[of.Filename].Bytes
	for _, list := range x.pieces[of.Filename] {
		if of.Start.Byte < list[0].start || of.Start.Byte >= list[len(list)-1].end {
			continue
		}
		i, found := slices.BinarySearchFunc(list, of.Start.Byte, func(p piece, start int) int { return cmp.Compare(p.start, start) })
		if !found || !bytes.Contains(src[list[i].start:list[i].end], []byte(name)) {
			continue
		}
		file, _ := hclsyntax.ParseConfig(src[list[i].start:list[i].end], of.Filename, list[i].pos)
		content, _ := file.Body.Content(siteSchema)
		for _, b := range content.Blocks {
			inside, _ := b.Body.Content(deviceSchema)
			return inside.Attributes[name]
		}
	}
	return nil
}

// eachThreshold calls check for every threshold with its parameter.
func (x *linter) eachThreshold(check func(*registry.Threshold, *registry.Parameter)) {
	for _, p := range x.s.Parameters {
		for _, t := range x.thresholds[p.Addr.Path] {
			check(t, p)
		}
	}
}

func lintDeadbands(x *linter) {
	x.eachThreshold(func(t *registry.Threshold, p *registry.Parameter) {
		if t.Deadband == 0 && p.Type != registry.TypeBool {
			x.warn(t.Addr, "deadband", "The alert of threshold %s comes and goes with every sample around its limit.", quote(t.Addr.Name()))
		}
	})
}

// span returns the least and greatest value of a parameter, infinite where it has no limit.
func span(p *registry.Parameter) (low, high float64) {
	low, high = math.Inf(-1), math.Inf(1)
	if p.Type == registry.TypeBool {
		low, high = 0, 1
	}
	if p.Min.Set {
		low = max(low, p.Min.Value)
	}
	if p.Max.Set {
		high = min(high, p.Max.Value)
	}
	return low, high
}

func lintUnreachable(x *linter) {
	x.eachThreshold(func(t *registry.Threshold, p *registry.Parameter) {
		low, high := span(p)
		then := "only values that are flagged as out of range exceed it"
		switch p.OnViolation {
		case registry.Reject:
			then = "values beyond that are refused, so the alert can never fire"
		case registry.Accept:
			then = "only values out of range exceed it"
		}
		if t.Above.Set && t.Above.Value >= high {
			x.warn(t.Addr, "above", "above is %s, and the parameter's values go up to %s: %s.", t.Above, formatNumber(high), then)
		}
		if t.Below.Set && t.Below.Value <= low {
			x.warn(t.Addr, "below", "below is %s, and the parameter's values go down to %s: %s.", t.Below, formatNumber(low), then)
		}
	})
}

func lintExceeded(x *linter) {
	x.eachThreshold(func(t *registry.Threshold, p *registry.Parameter) {
		low, high := span(p)
		if t.Above.Set && t.Above.Value < low {
			x.warn(t.Addr, "above", "All values of the parameter are above %s: they begin at %s.", t.Above, formatNumber(low))
		}
		if t.Below.Set && t.Below.Value > high {
			x.warn(t.Addr, "below", "All values of the parameter are below %s: they end at %s.", t.Below, formatNumber(high))
		}
	})
}

func lintSeverities(x *linter) {
	const critical = "critical"
	for _, p := range x.s.Parameters {
		for _, t := range x.thresholds[p.Addr.Path] {
			for _, c := range x.thresholds[p.Addr.Path] {
				if t.Severity == critical || c.Severity != critical {
					continue
				}
				if t.Above.Set && c.Above.Set && t.Above.Value >= c.Above.Value {
					x.warn(t.Addr, "above", "The warning %s is above %s, the critical %s above %s already.", quote(t.Addr.Name()), t.Above, quote(c.Addr.Name()), c.Above)
				}
				if t.Below.Set && c.Below.Set && t.Below.Value <= c.Below.Value {
					x.warn(t.Addr, "below", "The warning %s is below %s, the critical %s below %s already.", quote(t.Addr.Name()), t.Below, quote(c.Addr.Name()), c.Below)
				}
			}
		}
	}
}

// uncertain is the least OPC quality code of values that raise alerts.
const uncertain = 64

func lintQuality(x *linter) {
	x.eachThreshold(func(t *registry.Threshold, p *registry.Parameter) {
		if p.Quality < uncertain {
			x.warn(t.Addr, "", "Values of %s that come without a quality get %d, its default_quality, and do not count for the threshold %s.",
				quote(p.Addr.Name()), p.Quality, quote(t.Addr.Name()))
		}
	})
}

func lintStaleness(x *linter) {
	for _, p := range x.s.Parameters {
		if p.StaleAfter > 0 && p.StaleAfter <= p.Interval {
			x.warn(p.Addr, "stale_after", "A value of %s comes every %s, and is stale after %s.", quote(p.Addr.Name()), p.Interval, p.StaleAfter)
		}
	}
}

func lintRetention(x *linter) {
	if x.s.Retention == nil {
		return
	}
	x.eachThreshold(func(t *registry.Threshold, p *registry.Parameter) {
		if t.For > x.s.Retention.Raw {
			x.warn(t.Addr, "for", "The limit must be exceeded for %s, and telemetry is kept for %s.", registry.FormatDuration(t.For), registry.FormatDuration(x.s.Retention.Raw))
		}
	})
}

func lintDevicesWithoutParameters(x *linter) {
	for _, d := range x.s.Devices {
		if len(d.Parameters) == 0 {
			x.warn(d.Addr, "parameters", "The device %s has neither a template nor parameters.", quote(d.Addr.Name()))
		}
	}
}

func lintDevicesWithoutInterval(x *linter) {
	for _, d := range x.s.Devices {
		elsewhere := slices.ContainsFunc(d.Parameters, func(short string) bool { // declared, by the owner of the project
			return d.Interval == 0 && x.parameters[d.Project().Path+"/"+registry.NewAddress(registry.KindParameter, short).Path] == nil
		})
		if d.Interval == 0 && !elsewhere {
			x.warn(d.Addr, "interval", "Neither the device %s nor one of its parameters has an interval.", quote(d.Addr.Name()))
		}
	}
}

func lintUnsentParameters(x *linter) {
	type project struct {
		devices bool
		any     bool // a device does not say what it sends
		sent    map[string]bool
		last    []string
	}
	projects := map[string]*project{}
	for _, d := range x.s.Devices {
		path := d.Project().Path
		p := projects[path]
		if p == nil {
			p = &project{sent: map[string]bool{}}
			projects[path] = p
		}
		p.devices, p.any = true, p.any || len(d.Parameters) == 0
		if len(d.Parameters) > 0 && len(d.Parameters) == len(p.last) && &d.Parameters[0] == &p.last[0] { // of one template
			continue
		}
		for _, short := range d.Parameters {
			p.sent[short] = true
		}
		p.last = d.Parameters
	}
	for _, p := range x.projects {
		if p.reference { // others may have devices in it
			delete(projects, p.addr.Path)
		}
	}
	for _, param := range x.s.Parameters {
		p := projects[param.Addr.ParentPath()]
		if p != nil && p.devices && !p.any && !p.sent[param.Addr.Name()] {
			x.warn(param.Addr, "name", "None of the devices of the project %s sends the parameter %s.",
				quote(registry.Address{Kind: registry.KindProject, Path: param.Addr.ParentPath()}.Name()), quote(param.Addr.Name()))
		}
	}
}

func lintUnits(x *linter) {
	for _, p := range x.s.Parameters {
		if p.Type == registry.TypeFloat && !x.isSet(p.Addr, "unit") {
			x.warn(p.Addr, "unit", "The parameter %s has no unit. If its quantity has none, write unit = \"\".", quote(p.Addr.Name()))
		}
	}
}

func lintCase(x *linter) {
	names := func(a registry.Address) string { return a.Name() }
	parent := func(a registry.Address) string { return a.ParentPath() }
	tell := func(a, first registry.Address) {
		x.warn(a, "name", "The %s %s differs from %s, declared at %s, by case only.", a.Kind, quote(a.Name()), quote(first.Name()), x.declaredAt(first))
	}
	equalButForCase(addresses(x.s.Customers), parent, names, tell)
	equalButForCase(addresses(x.s.Projects), parent, names, tell)
	equalButForCase(addresses(x.s.Sites), parent, names, tell)
	equalButForCase(addresses(x.s.Devices), parent, names, tell)
	identified := slices.DeleteFunc(slices.Clone(x.s.Devices), func(d *registry.Device) bool { return d.ExternalID == "" })
	equalButForCase(identified, func(*registry.Device) string { return "" }, func(d *registry.Device) string { return d.ExternalID }, func(d, first *registry.Device) {
		x.warn(d.Addr, "external_id", "The external id %s differs from %s, declared at %s, by case only.", quote(d.ExternalID), quote(first.ExternalID), x.declaredAt(first.Addr))
	})
}

func addresses[O registry.Object](list []O) []registry.Address {
	out := make([]registry.Address, len(list))
	for i, o := range list {
		out[i] = o.Address()
	}
	return out
}

// equalButForCase calls tell for everything in list that has the parent of an earlier one, and its name in another case.
// It sorts hashes, because a map of a million names takes ten times as long, and looks at what has the same one.
func equalButForCase[T any](list []T, parent, name func(T) string, tell func(o, first T)) {
	if len(list) < 2 {
		return
	}
	var h maphash.Hash
	hashes := make([]uint64, len(list))
	for i, o := range list {
		h.Reset()
		h.WriteString(parent(o))
		h.WriteByte(0)
		h.WriteString(strings.ToLower(name(o)))
		hashes[i] = h.Sum64()
	}
	sorted := slices.Sorted(slices.Values(hashes))
	twice := map[uint64]bool{}
	for i, hash := range sorted[1:] {
		if hash == sorted[i] {
			twice[hash] = true
		}
	}
	type sibling struct{ parent, lower string }
	first := map[sibling]T{}
	for i, o := range list {
		if !twice[hashes[i]] {
			continue
		}
		key := sibling{parent(o), strings.ToLower(name(o))}
		if other, ok := first[key]; ok {
			tell(o, other)
		} else {
			first[key] = o
		}
	}
}

func lintBlanks(x *linter) {
	check := func(a registry.Address, attr, text string) {
		if strings.TrimSpace(text) != text {
			x.warn(a, attr, "%s is %s.", attr, quote(text))
		}
	}
	for _, p := range x.s.Projects {
		check(p.Addr, "description", p.Description)
	}
	for _, p := range x.s.Parameters {
		check(p.Addr, "unit", p.Unit)
		check(p.Addr, "description", strings.TrimRight(p.Description, "\n")) // with which a heredoc ends
	}
}

func lintUnusedTemplates(x *linter) {
	type written struct { // one that is in use somewhere, of those that a module that is used several times makes
		at   *hcl.Range
		name string
	}
	used := map[written]bool{}
	use := func(ref reference) {
		if t := ref.scope.template(ref.name); t != nil {
			used[written{t.origin.rng, t.name}] = true
		}
	}
	for _, p := range x.projects {
		for _, ref := range p.templates {
			use(ref)
		}
		for i := range p.devices {
			use(p.devices[i].template)
		}
	}
	for _, t := range x.templates {
		if !used[written{t.origin.rng, t.name}] {
			x.warnAt(*t.origin.rng, nil, "No project or device has the template %s.", quote(t.name))
		}
	}
}

func lintUnusedLocals(x *linter) {
	for _, m := range x.allModules() {
		for _, name := range sortedKeys(m.locals) {
			if !m.used[name] {
				x.warnAt(m.locals[name].NameRange, nil, "Nothing refers to local.%s.", name)
			}
		}
	}
}

func lintAcceptedRanges(x *linter) {
	for _, p := range x.s.Parameters {
		if p.OnViolation == registry.Accept && (p.Min.Set || p.Max.Set || p.Type != registry.TypeFloat) {
			x.warn(p.Addr, "on_violation", "Values outside of the range and type of %s are stored as if they were inside.", quote(p.Addr.Name()))
		}
	}
}

func lintRates(x *linter) {
	all := x.s.EffectiveLimits()
	type customer struct{ rate, device, sum float64 }
	customers := map[string]*customer{}
	for _, c := range x.s.Customers {
		rate, device := all.Of(c)
		customers[c.Addr.Path] = &customer{rate: rate.PerSecond, device: device.PerSecond}
	}
	for _, d := range x.s.Devices {
		if d.Interval == 0 {
			continue
		}
		path, _, _ := strings.Cut(d.Addr.Path, "/")
		c := customers[path]
		if c == nil { // of another declaration
			continue
		}
		perSecond := float64(time.Second) / float64(d.Interval)
		c.sum += perSecond
		if limit := d.Own(registry.Rate{PerSecond: c.device}).PerSecond; perSecond > limit {
			x.warn(d.Addr, "interval", "The device %s would send %s events a second; its limit is %s.", quote(d.Addr.Name()), rough(perSecond), rough(limit))
		}
	}
	for _, o := range x.s.Customers {
		if c := customers[o.Addr.Path]; c.sum > c.rate {
			x.warn(o.Addr, "", "The devices of %s would send %s events a second together; their limit is %s.", quote(o.Addr.Name()), rough(c.sum), rough(c.rate))
		}
	}
}

// rough writes a rate with three digits, whole numbers in full.
func rough(f float64) string {
	if f >= 1000 {
		return formatNumber(math.Ceil(f))
	}
	return formatNumber(math.Ceil(f*1000) / 1000)
}

// secretName matches what is called like a secret, but not like the name or place of one.
var secretName = regexp.MustCompile(`(?i)(?:password|passwd|passphrase|secret|token|credentials?|api_?key|private_?key|access_?key)(?:_?value)?$`)

// A secretText is a key in the form that keys are exchanged in.
const secretText = "PRIVATE KEY-----"

// A confidential diagnostic points at a line that must not be shown.
type confidential struct{}

// Confidential reports whether the source that a diagnostic points at must not be shown.
func Confidential(d *hcl.Diagnostic) bool {
	_, yes := d.Extra.(confidential)
	return yes
}

func lintSecrets(x *linter) {
	report := func(d *hcl.Diagnostic) {
		d.Extra = confidential{}
		if d.Subject != nil {
			x.secrets[d.Subject.Filename] = true
		}
	}
	check := func(a registry.Address, attr, text string) {
		if text == "" {
			return
		}
		if key := secretIn(text); key != "" {
			report(x.warn(a, attr, "%s has something under %s that looks like a secret.", attr, quote(key)))
		}
	}
	for _, c := range x.s.Customers {
		check(c.Addr, "metadata", c.Metadata)
	}
	for _, s := range x.s.Sites {
		check(s.Addr, "location", s.Location)
	}
	for _, m := range x.allModules() {
		leave := x.enter(newScope(m, nil))
		for _, name := range sortedKeys(m.locals) {
			if x.isSecretText(name, m.locals[name].Expr) {
				report(x.warnAt(m.locals[name].NameRange, nil, "local.%s looks like a secret.", name))
			}
		}
		for _, name := range sortedKeys(m.variables) {
			if attr := m.variables[name].attrs["default"]; attr != nil && x.isSecretText(name, attr.Expr) {
				report(x.warnAt(attr.NameRange, nil, "The default of var.%s looks like a secret.", name))
			}
		}
		leave()
	}
}

// isSecretText reports whether an expression says a secret by itself, rather than where it comes from.
func (x *linter) isSecretText(name string, expr hcl.Expression) bool {
	if len(expr.Variables()) > 0 || callsEnv(expr) {
		return false
	}
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return false
	}
	x.steps, x.bytes = 0, 0
	v, _ := x.eval(node, nil)
	s, isText := v.(string)
	return isText && isSecret(name, s)
}

// callsEnv reports whether an expression takes its value from the environment.
func callsEnv(expr hcl.Expression) bool {
	found := false
	if node, ok := expr.(hclsyntax.Node); ok {
		_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
			call, ok := n.(*hclsyntax.FunctionCallExpr)
			found = found || ok && call.Name == "env"
			return nil
		})
	}
	return found
}

func isSecret(key, value string) bool {
	return value != "" && (secretName.MatchString(key) || strings.Contains(value, secretText))
}

// secretIn returns the first key of a JSON object under which there is a secret, or "".
func secretIn(text string) string {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return ""
	}
	var look func(key string, v any) string
	look = func(key string, v any) string {
		switch v := v.(type) {
		case string:
			if isSecret(key, v) {
				return key
			}
		case []any:
			for _, item := range v {
				if found := look(key, item); found != "" {
					return found
				}
			}
		case map[string]any:
			for _, k := range sortedKeys(v) {
				if found := look(k, v[k]); found != "" {
					return found
				}
			}
		}
		return ""
	}
	return look("", object)
}

func lintReadable(x *linter) {
	for _, name := range sortedKeys(x.secrets) {
		if mode, err := x.mode(name); err == nil && mode.Perm()&0o004 != 0 {
			x.warnAt(hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, nil, "%s has the mode %04o.", name, mode.Perm()).Extra = confidential{}
		}
	}
}

// nolint is a comment that silences findings of some codes on one line.
type nolint struct {
	rng   hcl.Range
	line  int
	codes []string
	used  []bool
}

var mayNolint = regexp.MustCompile(`(?:#|//)\s*nolint\b`)

var nolintComment = regexp.MustCompile(`^(?:#|//)\s*nolint\b(?::([A-Za-z0-9,]*))?[ \t]*(.*)`)

// silence removes the findings that comments silence, and reports the comments that are wrong or silence nothing.
func (x *linter) silence() {
	known := map[string]bool{}
	for _, r := range rules {
		known[r.code] = true
	}
	type at struct {
		file string
		line int
	}
	comments := map[at][]*nolint{}
	var list []*nolint
	for _, name := range sortedKeys(x.pieces) { // the files of the declaration, without those of values for its variables
		for _, n := range nolints(name, x.sources.Files[name].Bytes, func(rng hcl.Range, why string) {
			x.code = codeInvalidNolint
			x.warnAt(rng, nil, "%s", why)
		}, known) {
			comments[at{name, n.line}] = append(comments[at{name, n.line}], n)
			list = append(list, n)
		}
	}
	x.diags = slices.DeleteFunc(x.diags, func(d *hcl.Diagnostic) bool {
		silenced := false
		for _, n := range comments[at{d.Subject.Filename, d.Subject.Start.Line}] {
			if i := slices.Index(n.codes, Code(d)); i >= 0 {
				n.used[i], silenced = true, true
			}
		}
		return silenced
	})
	x.code = codeUnusedNolint
	for _, n := range list {
		for i, code := range n.codes {
			if !n.used[i] {
				x.warnAt(n.rng, nil, "There is no finding %s on line %d.", code, n.line)
			}
		}
	}
	slices.SortStableFunc(x.diags, func(a, b *hcl.Diagnostic) int { return compareRanges(a.Subject, b.Subject) })
}

// nolints returns the comments of a file that silence something, and reports those that don't say what or why.
func nolints(filename string, src []byte, report func(rng hcl.Range, why string), known map[string]bool) []*nolint {
	if !mayNolint.Match(src) {
		return nil
	}
	lines := bytes.Split(bytes.TrimSuffix(src, []byte("\n")), []byte("\n"))
	line, start := 0, 0 // of the comment before: its index and offset
	var list []*nolint
	s := scanner{filename: filename, src: src}
	s.comment = func(from, to int) {
		text := strings.TrimSpace(string(src[from:to]))
		m := nolintComment.FindStringSubmatch(text)
		if m == nil {
			return
		}
		line += bytes.Count(src[start:from], []byte("\n"))
		start = bytes.LastIndexByte(src[:from], '\n') + 1
		n := &nolint{line: line + 1, codes: strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' })}
		n.rng = *problemAt(filename, src, n.line, start, from, len(text), "", "").Subject
		unknown := slices.IndexFunc(n.codes, func(c string) bool { return !known[c] })
		switch {
		case len(n.codes) == 0:
			report(n.rng, "The comment does not say what it silences: write # nolint:CODE reason.")
			return
		case unknown >= 0:
			report(n.rng, fmt.Sprintf("%s is no finding that a comment can silence.%s", quote(n.codes[unknown]), didYouMean(n.codes[unknown], sortedKeys(known))))
			return
		case strings.TrimSpace(m[2]) == "":
			report(n.rng, "The comment does not say why: write the reason behind "+n.codes[len(n.codes)-1]+".")
			return
		}
		for i := line; isComment(lines[i]) && i+1 < len(lines); i++ {
			n.line = i + 2
		}
		n.used = make([]bool, len(n.codes))
		list = append(list, n)
	}
	s.run()
	return list
}

// isComment reports whether there is nothing on a line but a comment.
func isComment(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#' || bytes.HasPrefix(line, []byte("//"))
}
