customer "acme" {
}
moved {
  from = "customer.mill"
  to   = "customer.works" # ERROR: Moved to what is not declared
}
