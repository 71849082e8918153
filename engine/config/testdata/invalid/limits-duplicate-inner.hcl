limits {
  device {
    events_per_second = 200
    burst             = 1000
  }
  device { # ERROR: Duplicate device
    events_per_second = 200
    burst             = 1000
  }
}
customer "Acme" {
  limits {
    events_per_second = 200
    burst             = 1000
  }
  limits { # ERROR: Duplicate limits
    events_per_second = 200
    burst             = 1000
  }
}
