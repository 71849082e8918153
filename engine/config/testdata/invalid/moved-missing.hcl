customer "acme" {
}
moved { # ERROR: Missing required argument
  from = "customer.mill"
}
