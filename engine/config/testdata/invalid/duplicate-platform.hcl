platform "queue_depth" {
  warning = 1000
}
platform "queue_depth" { # ERROR: Duplicate platform
  warning = 2000
}
