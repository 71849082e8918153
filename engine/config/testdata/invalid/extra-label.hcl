retention "telemetry" { # ERROR: Extraneous label for retention
  raw = "90d"
}
