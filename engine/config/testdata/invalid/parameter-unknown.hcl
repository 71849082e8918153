template "energy_meter" {
  parameter "voltage" {
  }
}
customer "Acme" {
  project "energy" {
    templates = ["energy_meter"]
    site "north" {
      device "main" {
        type = "meter"
        parameters = [
          "voltage",
          "volatge", # ERROR: Unknown parameter
        ]
      }
    }
  }
}
