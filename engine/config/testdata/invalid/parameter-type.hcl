template "meter" {
  parameter "voltage" {
    type = "string" # ERROR: Invalid type
  }
}
