costumer "Acme" { # ERROR: Unsupported block type
}
