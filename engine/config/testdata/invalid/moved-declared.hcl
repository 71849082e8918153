customer "acme" {
}
customer "mill" {
}
moved {
  from = "customer.mill" # ERROR: Moved but declared
  to   = "customer.acme"
}
