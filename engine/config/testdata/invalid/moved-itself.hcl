customer "acme" {
}
moved {
  from = "customer.acme"
  to   = "customer.acme" # ERROR: Moved to itself
}
