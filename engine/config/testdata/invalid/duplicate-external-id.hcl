customer "Acme" {
  project "energy" {
    site "north" {
      device "one" {
        type        = "meter"
        external_id = "EM-1"
      }
    }
    site "south" {
      device "two" {
        type        = "meter"
        external_id = "EM-1" # ERROR: Duplicate external ID
      }
    }
  }
}
