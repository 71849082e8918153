limits {
  device "meter" { # ERROR: Extraneous label for device
    events_per_second = 10
    burst             = 10
  }
}
