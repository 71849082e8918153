locals {
  a = 1 / 0 # ERROR: Number out of range
}
