template "meter" {
  parameter "voltage" {
    maxx = 3 # ERROR: Unsupported argument
  }
}
