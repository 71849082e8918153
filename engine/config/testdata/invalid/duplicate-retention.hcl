retention {
  raw = "90d"
}
retention { # ERROR: Duplicate retention
  raw = "90d"
}
