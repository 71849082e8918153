retention {
  raw = "" # ERROR: Invalid duration
}
