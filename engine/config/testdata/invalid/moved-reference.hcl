customer "acme" {
  reference = true
  project "mill" {
  }
}
moved {
  from = "customer.works"
  to   = "customer.acme" # ERROR: Moved to what is not declared
}
