retention {
  raw = "30m1h" # ERROR: Invalid duration
}
