locals {
  a = [for a in range(99) : [for b in range(99) : [for c in range(99) : [for d in range(99) : [for e in range(99) : [for f in range(99) : f]]]]]] # ERROR: Unsupported expression
}
