platform "queue_deph" { # ERROR: Unknown platform metric
  warning = 1000
}
