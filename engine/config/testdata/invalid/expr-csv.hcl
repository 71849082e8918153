locals {
  a = csvdecode("name,unit\na\n") # ERROR: Invalid CSV
}
