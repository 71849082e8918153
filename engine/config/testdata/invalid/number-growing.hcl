locals {
  a = 1e300
  b = local.a * local.a # ERROR: Number out of range
}
