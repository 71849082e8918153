locals {
  a = file("/etc/hostname") # ERROR: File not readable
}
