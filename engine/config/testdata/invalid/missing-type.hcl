customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" { # ERROR: Missing required argument
      }
    }
  }
}
