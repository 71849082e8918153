template "meter" {
  parameter "voltage" {
    required = "yes" # ERROR: Wrong type
  }
}
