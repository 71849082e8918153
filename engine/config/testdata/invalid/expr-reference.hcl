customer "Acme" {
  parent = Group # ERROR: Invalid reference
}
