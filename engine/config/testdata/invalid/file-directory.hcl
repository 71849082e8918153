locals {
  a = file(".") # ERROR: File not readable
}
