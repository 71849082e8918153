customer "Acme" {
  project "energy" {
    description = "a\u0000b" # ERROR: Invalid text
  }
}
