customer "Acme\u202eslliM" { # ERROR: Invalid name
}
