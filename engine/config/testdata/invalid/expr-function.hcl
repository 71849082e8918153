locals {
  a = uper("a") # ERROR: Unknown function
}
