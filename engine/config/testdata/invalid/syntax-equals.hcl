retention = { # ERROR: Unsupported argument
  raw = "90d"
}
