customer "Acme" {
  for_each = "three" # ERROR: Wrong type
  name     = each.value
}
