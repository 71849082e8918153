template "meter" {
  parameter "voltage" {
    max = 0.00000000000000000000000000000000000000000000000000000000000000001 # ERROR: Number too long
  }
}
