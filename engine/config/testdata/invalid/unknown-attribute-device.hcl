customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" {
        type       = "meter"
        externalid = "EM-1" # ERROR: Unsupported argument
      }
    }
  }
}
