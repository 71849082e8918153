limits {
  device { # ERROR: Missing required argument
    events_per_second = 200
  }
}
