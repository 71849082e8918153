customer "acme" {
  project "mill" {
  }
}
moved {
  from = "customer.mill"
  to   = "project.acme/mill" # ERROR: Different kinds
}
