package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Snapshot is everything that exists at one moment. It is built once and never changed: readers share it without a lock.
// Each slice is sorted by address.
type Snapshot struct {
	Registry uuid.UUID // which registry this is of; zero for a declaration, or a database without tables

	Version  int64 // of the last apply; 0 for a declaration, or when nothing was applied yet
	Revision int64 // counts every change to the registry, by whatever means; 0 for a declaration

	// AppliedRevision is the Revision up to which applies know of all changes: when it is equal, nothing was changed by hand
	// since the last one. It is 0 when that is not known.
	AppliedRevision int64

	Customers  []*Customer
	Projects   []*Project
	Sites      []*Site
	Devices    []*Device
	Parameters []*Parameter
	Thresholds []*Threshold
	Platform   []*Platform
	Retention  *Retention // nil when none is declared
	Limits     *Limits    // nil when none are declared
	Policy     *Policy    // nil when none is declared
	Discovery  *Discovery // nil when none is declared

	// What a declaration says beside what exists. Empty for the registry itself.
	Owner      string // the declaration's name; "" for DefaultOwner
	Moves      []Moved
	Imports    []Imported
	Released   []Released
	References []Referenced
	Given      []Given

	index func() *index // made when it is first asked for: a plan over a million devices never does
}

// index is what devices and parameters are looked up in.
type index struct {
	devices    map[uuid.UUID]*Device
	external   map[string]*Device
	parameters map[string]*Parameter
}

// Moved says that what is at From, or was before an earlier apply, is declared at To.
type Moved struct {
	From, To Address
	Place    string // where it is written, as file:line:column

	exact bool // what is at From now goes to To, and not on to where another move leads from there
}

// Imported says that the unmanaged object with an id is the one that is declared at To.
type Imported struct {
	To    Address
	ID    string // a UUID, or the external id of a device
	Place string
}

// Given says that the device at To has an id that does not follow from its address: one that it sends by already.
type Given struct {
	To    Address
	ID    uuid.UUID
	Place string
}

// Released says that the object at From, and what is below it, is not managed by this declaration any more, but stays.
type Released struct {
	From  Address
	Place string

	alone bool // without what is below it
}

// Referenced says that an object that others manage exists, because something declared hangs off it or names it.
type Referenced struct {
	Address Address
	Place   string
}

// Declare builds the snapshot of a declaration: every object gets the id of its address, and what follows from ids.
func Declare(objects []Object) *Snapshot {
	ids := map[Address]uuid.UUID{} // of what others hang off
	id := func(a Address) uuid.UUID {
		if a.Kind == KindDevice || a.Kind == KindThreshold {
			return a.ID()
		}
		known, ok := ids[a]
		if !ok {
			known = a.ID()
			ids[a] = known
		}
		return known
	}
	for _, o := range objects {
		assignIDs(o, id)
	}
	return NewSnapshot(objects)
}

// NewSnapshot builds a snapshot of objects that already have their ids.
func NewSnapshot(objects []Object) *Snapshot {
	s := &Snapshot{}
	for _, o := range objects {
		switch o := o.(type) {
		case *Customer:
			s.Customers = append(s.Customers, o)
		case *Project:
			s.Projects = append(s.Projects, o)
		case *Site:
			s.Sites = append(s.Sites, o)
		case *Device:
			s.Devices = append(s.Devices, o)
		case *Parameter:
			s.Parameters = append(s.Parameters, o)
		case *Threshold:
			s.Thresholds = append(s.Thresholds, o)
		case *Platform:
			s.Platform = append(s.Platform, o)
		case *Retention:
			s.Retention = o
		case *Limits:
			s.Limits = o
		case *Policy:
			s.Policy = o
		case *Discovery:
			s.Discovery = o
		default:
			panic(fmt.Sprintf("registry: a snapshot has no place for %T", o))
		}
	}
	sortByAddress(s.Customers)
	sortByAddress(s.Projects)
	sortByAddress(s.Sites)
	sortByAddress(s.Devices)
	sortByAddress(s.Parameters)
	sortByAddress(s.Thresholds)
	sortByAddress(s.Platform)
	s.index = sync.OnceValue(func() *index { return newIndex(s.Devices, s.Parameters) })
	return s
}

func newIndex(devices []*Device, parameters []*Parameter) *index {
	x := &index{make(map[uuid.UUID]*Device, len(devices)), make(map[string]*Device, len(devices)), make(map[string]*Parameter, len(parameters))}
	for _, d := range devices {
		x.devices[d.ID] = d
		if d.ExternalID != "" {
			x.external[d.ExternalID] = d
		}
	}
	for _, p := range parameters {
		x.parameters[p.Key] = p
	}
	return x
}

func sortByAddress[O Object](list []O) {
	slices.SortFunc(list, func(a, b O) int { return cmp.Compare(a.Address().Path, b.Address().Path) })
}

// Give lets devices have the ids that a declaration gives them. It completes a snapshot that nobody has read yet.
func (s *Snapshot) Give(list []Given) {
	s.Given = list
	for _, g := range list {
		if d, ok := s.find(g.To).(*Device); ok {
			d.ID = g.ID
		}
	}
	s.index = sync.OnceValue(func() *index { return newIndex(s.Devices, s.Parameters) })
}

// Device returns the device with an id, or nil.
func (s *Snapshot) Device(id uuid.UUID) *Device { return s.index().devices[id] }

// DeviceByExternalID returns the device with an external id, or nil.
func (s *Snapshot) DeviceByExternalID(id string) *Device { return s.index().external[id] }

// Parameter returns the parameter template with a key, or nil. It does not allocate for string(bytes).
func (s *Snapshot) Parameter(key string) *Parameter { return s.index().parameters[key] }

// find returns the object at an address, or nil.
func (s *Snapshot) find(a Address) Object {
	switch a.Kind {
	case KindCustomer:
		return search(s.Customers, a)
	case KindProject:
		return search(s.Projects, a)
	case KindSite:
		return search(s.Sites, a)
	case KindDevice:
		return search(s.Devices, a)
	case KindParameter:
		return search(s.Parameters, a)
	case KindThreshold:
		return search(s.Thresholds, a)
	case KindPlatform:
		return search(s.Platform, a)
	case KindRetention:
		return search(singleton(s.Retention), a)
	case KindLimits:
		return search(singleton(s.Limits), a)
	case KindPolicy:
		return search(singleton(s.Policy), a)
	case KindDiscovery:
		return search(singleton(s.Discovery), a)
	}
	return nil
}

func search[O Object](list []O, a Address) Object {
	if i, ok := slices.BinarySearchFunc(list, a.Path, func(o O, path string) int { return cmp.Compare(o.Address().Path, path) }); ok {
		return list[i]
	}
	return nil
}

// Objects calls yield for every object, parents before children.
func (s *Snapshot) Objects(yield func(Object) bool) {
	_ = each(s.Platform, yield) && (s.Retention == nil || yield(s.Retention)) && (s.Limits == nil || yield(s.Limits)) &&
		(s.Policy == nil || yield(s.Policy)) && (s.Discovery == nil || yield(s.Discovery)) && each(s.Customers, yield) &&
		each(s.Projects, yield) && each(s.Sites, yield) && each(s.Parameters, yield) &&
		each(s.Thresholds, yield) && each(s.Devices, yield)
}

func each[O Object](list []O, yield func(Object) bool) bool {
	for _, o := range list {
		if !yield(o) {
			return false
		}
	}
	return true
}

// Checksum is the SHA-256, in hex, of what is declared: addresses and fields, whatever order they were written in, and
// the other blocks that a plan follows.
func (s *Snapshot) Checksum() string {
	h := sha256.New()
	var line []byte
	for o := range s.Objects {
		a := o.Address()
		line = append(append(append(line[:0], a.Kind...), '.'), a.Path...)
		for _, f := range o.Fields() {
			line = append(append(append(append(line, 0), f.Name...), 0), f.Value...)
		}
		h.Write(append(line, '\n'))
	}
	var others []string
	if owner := cmp.Or(s.Owner, DefaultOwner); owner != DefaultOwner {
		others = append(others, "declaration\x00"+owner)
	}
	for _, m := range s.Moves {
		others = append(others, "moved\x00"+m.From.String()+"\x00"+m.To.String())
	}
	for _, i := range s.Imports {
		others = append(others, "import\x00"+i.To.String()+"\x00"+i.ID)
	}
	for _, r := range s.Released {
		others = append(others, "released\x00"+r.From.String())
	}
	for _, r := range s.References {
		others = append(others, "reference\x00"+r.Address.String())
	}
	for _, g := range s.Given {
		others = append(others, "id\x00"+g.To.String()+"\x00"+g.ID.String())
	}
	slices.Sort(others)
	for _, line := range slices.Compact(others) {
		h.Write([]byte(line + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// assignIDs gives an object its id, and the ids and keys that it takes from its parents.
func assignIDs(o Object, id func(Address) uuid.UUID) {
	up := func(a Address, kind Kind) Address { return Address{kind, a.ParentPath()} }
	switch o := o.(type) {
	case *Customer:
		o.ID = id(o.Addr)
	case *Project:
		o.ID = id(o.Addr)
	case *Site:
		o.ID = id(o.Addr)
	case *Device:
		site := up(o.Addr, KindSite)
		o.ID, o.SiteID, o.ProjectID = id(o.Addr), id(site), id(up(site, KindProject))
		if o.GatewayID = uuid.Nil; o.Gateway != (Address{}) {
			o.GatewayID = id(o.Gateway)
		}
	case *Parameter:
		o.ID, o.Key = id(o.Addr), ParameterKey(id(up(o.Addr, KindProject)), o.Addr.Name())
	case *Threshold:
		parameter := up(o.Addr, KindParameter)
		o.ID, o.ParameterKey = id(o.Addr), ParameterKey(id(up(parameter, KindProject)), parameter.Name())
	}
}

// InUse counts the objects that are not retired.
func InUse[T Object](objects []T) int {
	n := 0
	for _, o := range objects {
		if !o.status().Retired {
			n++
		}
	}
	return n
}

// String says how much is in use, such as "2 customers, 3 projects, 4 sites, 24 devices, 9 parameters, 5 thresholds".
func (s *Snapshot) String() string {
	count := func(n int, noun string) string {
		if n != 1 {
			noun += "s"
		}
		return strconv.Itoa(n) + " " + noun
	}
	return strings.Join([]string{
		count(InUse(s.Customers), "customer"), count(InUse(s.Projects), "project"), count(InUse(s.Sites), "site"),
		count(InUse(s.Devices), "device"), count(InUse(s.Parameters), "parameter"), count(InUse(s.Thresholds), "threshold"),
	}, ", ")
}
