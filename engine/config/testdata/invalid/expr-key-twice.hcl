customer "Acme" {
  metadata = { a = 1, "a" = 2 } # ERROR: Duplicate key
}
