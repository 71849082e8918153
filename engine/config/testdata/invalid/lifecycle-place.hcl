retention {
  raw = "90d"
  lifecycle { # ERROR: Unsupported block type
    prevent_destroy = true
  }
}
