customer "acme" {
}
moved {
  from = "press-01" # ERROR: Invalid address
  to   = "device.acme/press-01" # ERROR: Invalid address
}
moved {
  from = "retention.telemetry" # ERROR: Invalid address
  to   = 7 # ERROR: Wrong type
}
moved {
  from = null # ERROR: Missing value
  to   = "site.acme//north" # ERROR: Invalid address
}
