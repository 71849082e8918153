template "meter" {
  parameter "voltage" {
    on_violation = "rejekt" # ERROR: Invalid on_violation
  }
}
