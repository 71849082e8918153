retention {
  raw = "90" # ERROR: Invalid duration
}
customer "Acme" {
  parent = "Nobody" # ERROR: Unknown customer
  project "energy" {
    templates = ["nothing"] # ERROR: Unknown template
    site "north" {
      device "main" {
        type     = 5 > 4   # ERROR: Wrong type
        interval = "5 min" # ERROR: Invalid duration
      }
    }
  }
}
