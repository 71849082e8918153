customer "Acme" {
  limits { # ERROR: Missing limit
  }
}
customer "Mills" {
  limits { # ERROR: Missing limit
    burst = 10
  }
}
