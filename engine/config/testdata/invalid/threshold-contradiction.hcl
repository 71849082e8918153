template "meter" {
  parameter "voltage" {
    threshold "window" {
      above = 10
      below = 10 # ERROR: Contradictory limits
    }
  }
}
