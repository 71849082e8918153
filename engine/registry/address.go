package registry

import (
	"cmp"
	"crypto/sha1"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Kind is the kind of a declared object, as the block that declares it is called.
type Kind string

const (
	KindCustomer  Kind = "customer"
	KindProject   Kind = "project"
	KindSite      Kind = "site"
	KindDevice    Kind = "device"
	KindParameter Kind = "parameter"
	KindThreshold Kind = "threshold"
	KindPlatform  Kind = "platform" // a threshold on the platform's own health
	KindRetention Kind = "retention"
	KindLimits    Kind = "limits"
	KindPolicy    Kind = "policy"
	KindDiscovery Kind = "discovery"
)

// rank orders kinds so that parents come before what hangs off them.
var rank = map[Kind]int{
	KindPlatform: 0, KindRetention: 1, KindLimits: 2, KindPolicy: 3, KindDiscovery: 4, KindCustomer: 5, KindProject: 6,
	KindSite: 6, KindParameter: 7, KindThreshold: 8, KindDevice: 9,
}

// Address names one object: its kind and the names from the customer down to it.
// It is comparable; its text form is "device.acme/mill/north/press-01".
// A name's own '/' and '%' are written %2F and %25.
type Address struct {
	Kind Kind
	Path string
}

var (
	escapeName   = strings.NewReplacer("%", "%25", "/", "%2F")
	unescapeName = strings.NewReplacer("%2F", "/", "%25", "%")
)

// NewAddress builds an address from names, outermost first.
func NewAddress(kind Kind, names ...string) Address {
	if len(names) == 1 {
		return Address{kind, escapeName.Replace(names[0])}
	}
	escaped := make([]string, len(names))
	for i, n := range names {
		escaped[i] = escapeName.Replace(n)
	}
	return Address{kind, strings.Join(escaped, "/")}
}

// Child returns the address of name, of the given kind, below a.
func (a Address) Child(kind Kind, name string) Address {
	return Address{kind, a.Path + "/" + escapeName.Replace(name)}
}

// Name returns the last name of the path, unescaped.
func (a Address) Name() string {
	name := a.Path[strings.LastIndexByte(a.Path, '/')+1:]
	if strings.IndexByte(name, '%') < 0 { // nearly all: the replacer takes ten times as long
		return name
	}
	return unescapeName.Replace(name)
}

// Names returns the path's names, outermost first, unescaped.
func (a Address) Names() []string {
	names := strings.Split(a.Path, "/")
	for i, n := range names {
		names[i] = unescapeName.Replace(n)
	}
	return names
}

// ParentPath returns the path without its last name, "" at the top.
func (a Address) ParentPath() string {
	if i := strings.LastIndexByte(a.Path, '/'); i >= 0 {
		return a.Path[:i]
	}
	return ""
}

// parents says what an object of a kind hangs off.
var parents = map[Kind]Kind{
	KindProject: KindCustomer, KindSite: KindProject, KindParameter: KindProject, KindDevice: KindSite, KindThreshold: KindParameter,
}

// Parent returns the address of what an object hangs off; ok is false for one that hangs off nothing.
func (a Address) Parent() (parent Address, ok bool) {
	kind, ok := parents[a.Kind]
	i := strings.LastIndexByte(a.Path, '/')
	if !ok || i < 0 {
		return Address{}, false
	}
	return Address{kind, a.Path[:i]}, true
}

// below returns the address of the same name below another parent.
func (a Address) below(parent Address) Address {
	return Address{a.Kind, parent.Path + a.Path[strings.LastIndexByte(a.Path, '/'):]}
}

// Within reports whether an address, or what it hangs off, directly or not, is in a set.
func (a Address) Within(set map[Address]bool) bool {
	for ok := true; ok; a, ok = a.Parent() {
		if set[a] {
			return true
		}
	}
	return false
}

func (a Address) String() string { return string(a.Kind) + "." + a.Path }

func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what String writes. A row that another program made may have an empty name.
func (a *Address) UnmarshalText(text []byte) (err error) {
	if kind, ok := strings.CutSuffix(string(text), "."); ok && isKind(kind) {
		*a = Address{Kind: Kind(kind)}
		return nil
	}
	*a, err = ParseAddress(string(text))
	return err
}

func isKind(text string) bool {
	_, ok := rank[Kind(text)]
	return ok
}

// ParseAddress reads what String writes of an object that can be declared.
func ParseAddress(s string) (Address, error) {
	kind, path, ok := strings.Cut(s, ".")
	if !ok || !isKind(kind) || path == "" {
		return Address{}, fmt.Errorf("%q is not an address: want KIND.PATH, such as device.acme/mill/north/press-01", s)
	}
	return Address{Kind(kind), path}, nil
}

// Compare orders addresses for display and for applying: parents before children, then by path.
func Compare(a, b Address) int {
	return cmp.Or(cmp.Compare(rank[a.Kind], rank[b.Kind]), strings.Compare(a.Path, b.Path))
}

// namespace of all ids that NSReady gives out.
var namespace = uuid.MustParse("6f0c7c1e-53d1-5a7e-9a51-6e7372656164")

// ID is the UUID (version 5, RFC 9562) that an object first created at this address gets.
// The same address yields the same id in every database and at every time.
func (a Address) ID() uuid.UUID {
	text := make([]byte, 0, 256)
	text = append(append(append(append(text, namespace[:]...), a.Kind...), '.'), a.Path...)
	sum := sha1.Sum(text)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 5<<4 // version
	id[8] = id[8]&0x3f | 0x80 // variant
	return id
}

// freeID returns ID, or, while that is taken by an object that was created here and is elsewhere now, the next one in a row that
// follows from the address, too.
func (a Address) freeID(taken func(uuid.UUID) bool) uuid.UUID {
	id := a.ID()
	for n := 2; taken(id); n++ {
		id = uuid.NewSHA1(namespace, fmt.Appendf(nil, "%s\x00%d", a, n))
	}
	return id
}
