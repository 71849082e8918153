customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" {
        for_each = range(3) # ERROR: Missing name
        type     = "meter"
      }
    }
  }
}
