customer "Acme" {
  metadata = { a = "maybe" ? 1 : 2 } # ERROR: Wrong type
}
