platform "disk_usage" {
  critical = "190%" # ERROR: Invalid limit
}
