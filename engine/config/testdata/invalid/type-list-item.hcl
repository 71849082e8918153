template "meter" {
  parameter "voltage" {
  }
}
customer "Acme" {
  project "energy" {
    templates = [
      "meter",
      3, # ERROR: Wrong type
    ]
  }
}
