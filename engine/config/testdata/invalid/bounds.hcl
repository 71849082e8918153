template "meter" {
  parameter "voltage" {
    min = 10
    max = -10 # ERROR: Contradictory bounds
  }
}
