# for_each on every block that can be repeated.
locals {
  limits = { low = 10, high = 90 }
}

platform "rates" {
  for_each = { error_rate = "1%", disk_usage = "80%" }
  name     = each.key
  warning  = each.value
}

template "meter" {
  for_each = ["energy", "water"]
  name     = "${each.value}_meter"

  parameter "total" {
    name        = "${each.value} total"
    description = "of the ${each.value} meter"
  }
  parameter "rate" {
    for_each = ["a", "b"]
    name     = "rate ${each.value}"

    threshold "limit" {
      for_each = local.limits
      name     = "${each.key}-${each.value}"
      above    = each.value
    }
  }
}

customer "tenant" {
  for_each = ["Acme", "Mills"]
  name     = each.value

  project "plant" {
    for_each  = [each.value]
    name      = "plant of ${each.value}"
    templates = ["energy_meter"]

    site "hall" {
      for_each = range(2)
      name     = "hall-${each.key}"

      device "meter" {
        for_each = { m1 = "energy" }
        name     = each.key
        type     = each.value
        template = "${each.value}_meter"
      }
    }
  }
}
