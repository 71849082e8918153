customer "Acme" { # ERROR: Unclosed configuration block
  project "energy" {
  }
