locals {
  a = ["b"]
  c = local.a[1] # ERROR: Invalid index
}
