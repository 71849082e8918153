template "meter" {
  parameter "voltage" {
  }
  parameter "Voltage" { # ERROR: Duplicate parameter
  }
}
