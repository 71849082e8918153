template "meter" {
  parameter "voltage" {
    interval = "5 min" # ERROR: Invalid duration
  }
}
