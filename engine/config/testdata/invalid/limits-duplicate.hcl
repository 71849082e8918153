limits {
  connections = 100
}
limits { # ERROR: Duplicate limits
  connections = 100
}
