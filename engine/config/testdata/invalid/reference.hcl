customer "acme" {
  reference = true
  parent    = "group" # ERROR: Attribute of a reference
  limits { # ERROR: Block in a reference
    events_per_second = 1
    burst             = 1
  }
  project "mill" {
    reference   = true
    description = "the mill" # ERROR: Attribute of a reference
    lifecycle { # ERROR: Block in a reference
      prevent_destroy = true
    }
    site "north" {
      reference = "maybe" # ERROR: Wrong type
      device "press-01" {
        type      = "meter"
        reference = true # ERROR: Unsupported argument
      }
    }
  }
}
customer "acme" { # ERROR: Duplicate customer
  reference = true
}
