locals {
  a = range(1000001) # ERROR: Value too large
}
