template "energy_meter" {
  parameter "voltage" {
  }
}
customer "Acme" {
  project "energy" {
    templates = ["energy_metre"] # ERROR: Unknown template
  }
}
