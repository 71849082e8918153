customer " Acme" { # ERROR: Invalid name
}
