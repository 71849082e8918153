customer "Acme" {
  metadata = { for k, v in { a = 1 } : k => v } # ERROR: Unsupported expression
}
