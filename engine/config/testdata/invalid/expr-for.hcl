locals {
  a = [for i in range(10) : i] # ERROR: Unsupported expression
}
