locals {
  a = file("/dev/zero") # ERROR: File not readable
}
