limits {
  device {
    events_per_second = null # ERROR: Missing value
    burst             = 10
  }
}
