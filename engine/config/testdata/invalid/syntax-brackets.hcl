customer "Acme" {
  metadata = { tags = ["a", "b" } # ERROR: Unbalanced brackets
}
