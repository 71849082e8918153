customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" { # ERROR: Duplicate device
        for_each = range(2)
        name     = "the-same"
        type     = "meter"
      }
    }
  }
}
