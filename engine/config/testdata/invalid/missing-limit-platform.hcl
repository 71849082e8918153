platform "queue_depth" { # ERROR: Missing limit
}
