template "meter" {
  parameter "voltage" {
    threshold "high" {
      above    = 10
      severity = "critcal" # ERROR: Invalid severity
    }
  }
}
