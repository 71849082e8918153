locals {
  voltage = 1
}
customer "Acme" {
  metadata = { v = local.volatge } # ERROR: Unknown local value
}
