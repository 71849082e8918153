template "meter" {
  parameter "voltage" {
  }
}
template "meter" { # ERROR: Duplicate template
  parameter "voltage" {
  }
}
