customer "Acme" {
  parent = # ERROR: Invalid expression
}
