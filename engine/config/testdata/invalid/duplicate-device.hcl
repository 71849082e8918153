customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" {
        type = "meter"
      }
      device "meter" { # ERROR: Duplicate device
        type = "sensor"
      }
    }
  }
}
