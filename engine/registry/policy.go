package registry

// Policy says how the registry may be changed, whoever changes it. There is one, at the address policy.apply.
type Policy struct {
	Status
	Addr             Address `json:"address"`
	RequireSavedPlan bool    `json:"require_saved_plan,omitzero"` // apply takes saved plans alone
}

// PolicyAddress is the address of the registry's only Policy.
var PolicyAddress = Address{KindPolicy, "apply"}

func (p *Policy) Address() Address { return p.Addr }

func (p *Policy) Fields() []Field {
	return []Field{{"require_saved_plan", formatBool(p.RequireSavedPlan)}}
}

// RequiresSavedPlan reports whether apply takes saved plans alone.
func (s *Snapshot) RequiresSavedPlan() bool { return s.Policy != nil && s.Policy.RequireSavedPlan }
