customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" {
        type = null # ERROR: Missing value
      }
    }
  }
}
