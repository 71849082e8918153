customer "a" {
  parent = "b" # ERROR: Cycle of customers
}
customer "b" {
  parent = "c"
}
customer "c" {
  parent = "a"
}
