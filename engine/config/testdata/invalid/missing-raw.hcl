retention { # ERROR: Missing required argument
  compress_after = "7d"
}
