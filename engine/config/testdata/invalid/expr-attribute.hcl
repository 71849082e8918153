locals {
  rows = csvdecode("name,unit\na,b\n")
}
customer "Acme" {
  metadata = { v = local.rows[0].nmae } # ERROR: Unknown attribute
}
