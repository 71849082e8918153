template "energy_meter" {
  parameter "voltage" {
  }
}
customer "Acme" {
  project "energy" {
    site "north" {
      device "main" {
        type     = "meter"
        template = "water_meter" # ERROR: Unknown template
      }
    }
  }
}
