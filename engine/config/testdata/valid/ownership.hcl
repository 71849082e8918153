declaration {
  name = "plant-north"
}

customer "acme" {
  reference = true

  project "mill" {
    reference = true

    parameter "current" {
      lifecycle {
        prevent_destroy = true
      }
    }

    site "north" {
      lifecycle {
        prevent_destroy = true
      }

      device "press-01" {
        type       = "meter"
        parameters = ["Voltage L1", "current"]

        lifecycle {
          prevent_destroy = true
        }
      }
      device "press-02" {
        type     = "meter"
        template = "meter"

        lifecycle {
          prevent_destroy = false
        }
      }
    }
  }

  project "works" {
    lifecycle {
      prevent_destroy = true
    }
  }
}

customer "own" {
  parent = "acme"

  lifecycle {
    prevent_destroy = true
  }
}

template "meter" {
  parameter "power" {
    interval = "10s"
  }
}

moved {
  from = "customer.first"
  to   = "customer.second"
}

moved {
  from = "customer.second"
  to   = "customer.own"
}

import {
  to = "device.acme/mill/north/press-01"
  id = "EM-1"
}

released {
  from = "site.acme/mill/${local.left}"
}

released {
  from = "retention.telemetry"
}

locals {
  left = "south"
}
