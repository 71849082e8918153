customer "Acme" {
  metadata = "textiles" # ERROR: Wrong type
}
