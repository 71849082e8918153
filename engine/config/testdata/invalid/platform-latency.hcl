platform "latency_p95" {
  warning = 5 # ERROR: Invalid duration
}
