locals {
  a = jsondecode("{\"a\": }") # ERROR: Invalid JSON
}
