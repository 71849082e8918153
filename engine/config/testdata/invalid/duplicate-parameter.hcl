customer "Acme" {
  project "energy" {
    parameter "Tank Level" {
    }
    parameter "tank_level" { # ERROR: Duplicate parameter
    }
  }
}
