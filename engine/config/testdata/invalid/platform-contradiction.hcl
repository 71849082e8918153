platform "queue_depth" {
  warning  = 1000
  critical = 100 # ERROR: Contradictory limits
}
