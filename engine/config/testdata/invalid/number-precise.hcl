customer "Acme" {
  metadata = { id = 12345678901234567890 } # ERROR: Number too precise
}
