template "meter" {
  parameter "voltage" {
    interval = "0s" # ERROR: Invalid duration
  }
}
