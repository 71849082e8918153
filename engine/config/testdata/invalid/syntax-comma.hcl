retention {
  raw = "90d", # ERROR: Unexpected comma after argument
  compress_after = "7d"
}
