retention {
  raw = "999999999d" # ERROR: Invalid duration
}
