customer "Acme\nMills" { # ERROR: Invalid name
}
