locals {
  a = format("%02d", "x") # ERROR: Wrong type
}
