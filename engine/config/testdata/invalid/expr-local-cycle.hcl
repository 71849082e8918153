locals {
  a = local.b
  b = local.c
  c = local.a # ERROR: Cycle of local values
}
