customer "acme" {
  project "mill" {
    parameter "voltage" {
    }
    site "north" {
      device "press-01" {
        type = "meter"
        override "voltage" {
          deadband = 1 # ERROR: Unsupported argument
          max      = 5
        }
        override { # ERROR: Missing name for override
          max = 5
        }
      }
    }
  }
}
