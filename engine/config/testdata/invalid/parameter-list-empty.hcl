customer "Acme" {
  project "energy" {
    site "north" {
      device "main" {
        type       = "meter"
        parameters = [] # ERROR: Empty list
      }
    }
  }
}
