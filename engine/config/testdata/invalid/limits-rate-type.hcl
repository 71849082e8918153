limits {
  device {
    events_per_second = "many" # ERROR: Wrong type
    burst             = 10
  }
}
