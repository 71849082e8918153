limits {
  connections             = 10
  connections_per_address = 11 # ERROR: Contradictory limits
}
