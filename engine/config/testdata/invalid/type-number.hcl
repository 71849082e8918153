template "meter" {
  parameter "voltage" {
    max = "high" # ERROR: Wrong type
  }
}
