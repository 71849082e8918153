customer "a" {
  parent = "a" # ERROR: Cycle of customers
}
