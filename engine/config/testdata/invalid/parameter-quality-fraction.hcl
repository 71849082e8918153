template "meter" {
  parameter "voltage" {
    default_quality = 19.2 # ERROR: Invalid default_quality
  }
}
