customer "Acme Group" {
}
customer "Acme Mills" {
  parent = "Acme Grop" # ERROR: Unknown customer
}
