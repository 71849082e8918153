template "meter" {
  parameter "voltage" {
    max = 1e2000000000 # ERROR: Number out of range
  }
}
