customer "Acme" {
  project "energy" {
    site "north" {
      device "main" {
        type        = "meter"
        external_id = "EM-1 " # ERROR: Invalid external ID
      }
    }
  }
}
