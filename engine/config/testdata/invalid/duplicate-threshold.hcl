template "meter" {
  parameter "voltage" {
    threshold "high" {
      above = 250
    }
    threshold "high" { # ERROR: Duplicate threshold
      above = 260
    }
  }
}
