customer "acme" {
  lifecycle {
    prevent_destroy = "maybe" # ERROR: Wrong type
  }
  project "mill" {
    lifecycle { # ERROR: Missing required argument
    }
    parameter "voltage" {
      lifecycle {
        prevent_destroy = true
      }
      lifecycle { # ERROR: Duplicate lifecycle
        prevent_destroy = true
      }
    }
    site "north" {
      lifecycle {
        prevent_destroy = null # ERROR: Missing value
      }
    }
  }
}
