policy { # ERROR: Missing required argument
}
