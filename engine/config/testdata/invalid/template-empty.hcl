template "energy_meter" { # ERROR: Empty template
}
