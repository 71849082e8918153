retention {
  raw            = "7d"
  compress_after = "7d" # ERROR: Contradictory retention
}
