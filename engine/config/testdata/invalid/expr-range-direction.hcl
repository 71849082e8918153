locals {
  a = range(1, 10, -1) # ERROR: Invalid range
}
