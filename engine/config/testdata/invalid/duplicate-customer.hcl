customer "Acme" {
}
customer "Acme" { # ERROR: Duplicate customer
}
