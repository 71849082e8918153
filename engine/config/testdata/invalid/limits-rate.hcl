limits {
  device {
    events_per_second = 0 # ERROR: Invalid limit
    burst             = 10
  }
  customer {
    events_per_second = 2e9 # ERROR: Invalid limit
    burst             = 10
  }
}
