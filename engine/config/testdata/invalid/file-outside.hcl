locals {
  a = file("../../loader.go") # ERROR: File not readable
}
