limits {
  connections_per_address = -1 # ERROR: Invalid connections_per_address
}
