customer "Acme" {
  project "energy" {
    templates = "meter" # ERROR: Wrong type
  }
}
