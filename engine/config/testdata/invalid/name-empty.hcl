customer "" { # ERROR: Invalid name
}
