retention {
  raw = "90d"
  raw = "30d" # ERROR: Attribute redefined
}
