locals {
  a = csvdecode("name,name\na,b\n") # ERROR: Invalid CSV
}
