customer "acme" {
  project "mill" {
    site "north" {
      device "router/1" {
        type = "router"
      }
      device "press-01" {
        type    = "meter"
        gateway = "router-1" # ERROR: Unknown gateway
      }
      device "press-02" {
        type    = "meter"
        gateway = "south/router" # ERROR: Unknown gateway
      }
      device "press-03" {
        type    = "meter"
        gateway = "press-03" # ERROR: Invalid gateway
      }
      device "press-04" {
        type    = "meter"
        gateway = "a/b/c/d/e" # ERROR: Invalid gateway
      }
      device "press-05" {
        type    = "meter"
        gateway = "/router" # ERROR: Invalid gateway
      }
      device "press-06" {
        type    = "meter"
        gateway = "device.other/mill/north/router" # ERROR: Invalid gateway
      }
      device "press-07" {
        type    = "meter"
        gateway = ["router"] # ERROR: Wrong type
      }
      device "press-08" {
        type    = "meter"
        gateway = "press-10" # ERROR: Cycle of gateways
      }
      device "press-09" {
        type    = "meter"
        gateway = "mill/north/press-08"
      }
      device "press-10" {
        type    = "meter"
        gateway = "north/press-09"
      }
    }
  }
}
customer "other" {
  project "mill" {
    site "north" {
      device "router" {
        type = "router"
      }
    }
  }
}
