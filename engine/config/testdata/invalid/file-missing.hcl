locals {
  a = file("no-such-file.csv") # ERROR: File not readable
}
