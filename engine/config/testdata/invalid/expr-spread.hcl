locals {
  a = concat([[1], [2]]...) # ERROR: Unsupported expression
}
