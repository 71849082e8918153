template "a" {
  parameter "voltage" {
  }
}
template "b" {
  parameter "voltage" { # ERROR: Duplicate parameter
  }
}
customer "Acme" {
  project "energy" {
    templates = ["a", "b"]
  }
}
