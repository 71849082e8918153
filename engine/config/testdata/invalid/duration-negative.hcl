template "meter" {
  parameter "voltage" {
    interval = "-1s" # ERROR: Invalid duration
  }
}
