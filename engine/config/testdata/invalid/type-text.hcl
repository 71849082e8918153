template "meter" {
  parameter "voltage" {
    unit = ["V"] # ERROR: Wrong type
  }
}
