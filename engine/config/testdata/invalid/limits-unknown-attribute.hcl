limits {
  conections = 10 # ERROR: Unsupported argument
  device {
    events_per_seconds = 10 # ERROR: Unsupported argument
    events_per_second  = 10
    burst              = 10
  }
}
customer "Acme" {
  project "energy" {
    site "north" {
      device "meter" {
        type = "meter"
        limits {
          burts             = 10 # ERROR: Unsupported argument
          events_per_second = 10
          burst             = 10
        }
      }
    }
  }
}
