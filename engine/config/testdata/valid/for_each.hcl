locals {
  rows = csvdecode(file("meters.csv"))
  data = jsondecode(file("limits.json"))
}

template "meter" {
  parameter "limit" {
    for_each = local.data.parameters
    name     = each.value.name
    max      = each.value["max"]

    threshold "high" {
      above = tonumber(each.value.max) - 1
    }
  }
}

customer "tenant" {
  for_each = toset(["b", "a", "b"])
  name     = "Tenant ${each.value}"

  project "energy" {
    site "north" {
      device "meter" {
        for_each    = local.rows
        name        = each.value.name
        type        = each.value.type
        external_id = ""
        interval    = each.value.interval
        template    = "meter"
      }
    }
  }
}
