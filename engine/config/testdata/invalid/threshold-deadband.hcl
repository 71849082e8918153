template "meter" {
  parameter "voltage" {
    threshold "high" {
      above    = 10
      deadband = -1 # ERROR: Invalid deadband
    }
  }
}
