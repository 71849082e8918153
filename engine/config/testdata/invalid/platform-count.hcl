platform "queue_depth" {
  warning = -1 # ERROR: Invalid limit
}
