customer "acme" {
  project "mill" {
    site "north" {
      device "press-01" {
        type = "meter"
      }
    }
  }
}
import {
  to = "site.acme/mill/north"
  id = "EM-1" # ERROR: Invalid id
}
import {
  to = "device.acme/mill/north/press-01"
  id = "EM-1"
}
import {
  to = "device.acme/mill/north/press-02" # ERROR: Import of what is not declared
  id = "EM-2"
}
import {
  to = "device.acme/mill/north/press-01" # ERROR: Duplicate import
  id = "EM-3"
}
import {
  to = "device.acme/mill/north/press-03" # ERROR: Import of what is not declared
  id = "EM-3"
}
import {
  to = "device.acme/mill/north/press-04"
  id = "EM-1" # ERROR: Duplicate import
}
import {
  to = "customer.acme"
  id = null # ERROR: Missing value
}
