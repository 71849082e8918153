limits {
  device {
    events_per_second = 10
    burst             = 1.5 # ERROR: Invalid burst
  }
  customer {
    events_per_second = 10
    burst             = 0 # ERROR: Invalid burst
  }
}
