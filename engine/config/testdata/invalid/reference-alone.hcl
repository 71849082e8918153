customer "acme" { # ERROR: Nothing declared
  reference = true
}
