customer "Acme" {
  parent = "Group # ERROR: Invalid multi-line string
}
