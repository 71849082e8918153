customer "a" {
}
customer "b" {
}
moved {
  from = "customer.old"
  to   = "customer.a"
}
moved {
  from = "customer.old" # ERROR: Duplicate moved
  to   = "customer.b"
}
moved {
  from = "customer.older"
  to   = "customer.a" # ERROR: Duplicate moved
}
