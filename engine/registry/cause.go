package registry

// Cause says what made a change necessary.
type Cause string

const (
	ByConfig Cause = "config" // the declaration was changed
	ByHand   Cause = "drift"  // the registry was changed by other means than an apply
	ByBoth   Cause = "both"
)

// Attribute sets the Cause of each change, given what the last apply left behind; nil when the registry is still like that.
func (p *Plan) Attribute(applied *Snapshot) {
	var byID map[identity]Object
	if applied != nil {
		byID = applied.byIdentity()
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		c.Cause = ByConfig
		if applied == nil {
			continue
		}
		var was Object
		if c.Before != nil {
			was = byID[identityOf(c.Before)]
		}
		if was == nil { // it has none, or was made again
			was = applied.find(c.Address)
		}
		c.Cause = cause(c, was)
	}
}

// cause compares the object as it was applied, nil for none, with the registry's, and with the declared one.
func cause(c *Change, applied Object) Cause {
	var config, hand bool
	switch {
	case c.Action == Delete:
		config, hand = applied != nil, applied == nil
	case applied == nil, c.Action == Release, c.Action == Import:
		config = true
	case c.Action == Create || !c.Before.status().Managed: // it was deleted by hand, or taken out of management
		config, hand = !same(applied, c.After), true
	default:
		if c.From != nil {
			config, hand = applied.Address() != c.Address, applied.Address() != *c.From
		}
		was := map[string]string{}
		for _, f := range applied.Fields() {
			was[f.Name] = f.Value
		}
		for _, f := range c.Fields {
			config = config || was[f.Name] != f.After
			hand = hand || was[f.Name] != f.Before
		}
	}
	switch {
	case config && hand:
		return ByBoth
	case hand:
		return ByHand
	}
	return ByConfig
}
