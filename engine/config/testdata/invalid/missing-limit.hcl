template "meter" {
  parameter "voltage" {
    threshold "high" { # ERROR: Missing limit
      for = "5m"
    }
  }
}
