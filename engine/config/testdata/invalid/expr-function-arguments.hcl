locals {
  a = upper("a", "b") # ERROR: Wrong number of arguments
}
