limits { # ERROR: Missing limit
}
