customer "Acme" {
  project "energy" {
    device "meter" { # ERROR: Unsupported block type
      type = "meter"
    }
  }
}
