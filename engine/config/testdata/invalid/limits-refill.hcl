limits {
  device {
    events_per_second = 0.1
    burst             = 10000000 # ERROR: Contradictory limits
  }
}
