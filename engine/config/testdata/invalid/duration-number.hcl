retention {
  raw = 90 # ERROR: Invalid duration
}
