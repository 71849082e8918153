retention {
  raw = "1e99h" # ERROR: Invalid duration
}
