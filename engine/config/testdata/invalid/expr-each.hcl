customer "Acme" {
  metadata = { v = each.value } # ERROR: Invalid reference
}
