template "meter" {
  parameter "voltage" {
    name = "Line Voltage"
    min  = 0
    max  = 480
  }
  parameter "current" {
  }
}
customer "acme" {
  project "mill" {
    templates = ["meter"]
    parameter "power" {
    }
    site "north" {
      device "press-01" {
        type     = "meter"
        template = "meter"
        override "voltge" { # ERROR: Unknown parameter
          max = 500
        }
        override "power" { # ERROR: Unknown parameter
          max = 500
        }
        override "current" { # ERROR: Empty override
        }
        override "Line Voltage" {
          max = -5 # ERROR: Contradictory bounds
        }
        override "voltage" { # ERROR: Duplicate override
          min = 1
        }
      }
      device "press-02" {
        type = "meter"
        override "voltage" {
          min = 481 # ERROR: Contradictory bounds
        }
        override "nothing" { # ERROR: Unknown parameter
          interval = "5s"
        }
      }
      device "press-03" {
        for_each   = ["a"]
        name       = each.value
        type       = "meter"
        parameters = ["voltage"]
        override "voltage" {
          interval        = 5      # ERROR: Invalid duration
          stale_after     = "0s"   # ERROR: Invalid duration
          on_violation    = "stop" # ERROR: Invalid on_violation
          default_quality = 256    # ERROR: Invalid default_quality
        }
      }
    }
  }
}
