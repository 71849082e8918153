customer "acme" {
}
moved {
  from = "customer.a" # ERROR: Cycle of moves
  to   = "customer.b"
}
moved {
  from = "customer.b"
  to   = "customer.c"
}
moved {
  from = "customer.c"
  to   = "customer.a"
}
