template "meter" {
  parameter "voltage" {
    precision = 16 # ERROR: Invalid precision
  }
  parameter "current" {
    precision = 1.5 # ERROR: Invalid precision
  }
  parameter "power" {
    precision   = "two" # ERROR: Wrong type
    stale_after = "0s"  # ERROR: Invalid duration
  }
}
