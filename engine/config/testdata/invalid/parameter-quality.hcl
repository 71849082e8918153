template "meter" {
  parameter "voltage" {
    default_quality = 256 # ERROR: Invalid default_quality
  }
}
