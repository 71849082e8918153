declaration {
  name = " north" # ERROR: Invalid name
}
customer "acme" {
}
