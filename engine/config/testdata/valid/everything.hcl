# Every block and attribute of the language.
locals {
  city     = "Pune"
  prefix   = lower("EM")
  stations = merge({ north = 1 }, { south = 2 })
  motd     = <<-EOT
    Two lines,
    ${local.city}.
  EOT
}

retention {
  raw            = "90d"
  compress_after = "7d"
}

limits {
  connections             = 4096
  connections_per_address = 512

  device {
    events_per_second = 0.5
    burst             = 86400
  }
  customer {
    events_per_second = 20000
    burst             = "1e6"
  }
}

policy {
  require_saved_plan = true
}

platform "queue_depth" {
  warning  = 1000
  critical = 10000
}

platform "error_rate" {
  warning  = "1%"
  critical = 5
}

platform "latency_p95" {
  warning = "1m5.5s"
}

template "energy_meter" {
  parameter "Line Voltage" {
    name            = "Voltage, line to neutral"
    unit            = "V"
    type            = "float"
    min             = -0.5
    max             = 480
    precision       = 1
    required        = true
    interval        = "1m"
    stale_after     = "5m"
    description     = local.motd
    on_violation    = "reject"
    default_quality = 192

    threshold "high" {
      above    = 253
      for      = "5m"
      deadband = 2
      severity = "critical"
    }
    threshold "window" {
      above = 250
      below = 200
    }
  }
  parameter "running" {
    type      = "bool"
    precision = 0
    interval  = "250ms"
  }
}

customer "Acme Group" {
  metadata = { industry = "textiles", sites = 2, "a/b" = [true, null] }

  limits {
    device {
      events_per_second = 2
      burst             = 10
    }
  }
}

customer "Acme Mills" {
  parent = "Acme Group"

  limits {
    events_per_second = local.stations["north"] + 999
    burst             = 5000
  }

  project "energy" {
    description = "Energy of ${local.city}%{if true}!%{else}?%{endif}"
    templates   = ["energy_meter"]

    parameter "tank level (%)" {
      type = "int"
    }

    site "plant 1/2" {
      location = { city = local.city, latitude = 18.52 }

      device "main" {
        type        = "meter"
        external_id = upper("${local.prefix}-1")
        status      = "maintenance"
        interval    = "1h30m"
        template    = "energy_meter"
        parameters  = ["tank level (%)"]

        override "line_voltage" {
          min             = -1
          max             = "520"
          interval        = "10s"
          stale_after     = "1d"
          on_violation    = "flag"
          default_quality = 0
        }
        override "tank level (%)" {
          max = local.stations.north
        }
      }
      device "silent" {
        type    = "controller"
        gateway = "main"
      }
      device "display names" {
        type       = "meter"
        parameters = ["Voltage, line to neutral", "running"]
      }
    }

    site "station" {
      for_each = local.stations
      name     = "station-${each.key}"
      location = { number = each.value }

      device "pump" {
        type    = "controller-${each.key}"
        gateway = each.key == "north" ? "plant 1%2F2/silent" : "device.Acme Mills/energy/station-north/pump"
      }
      device "sensor" {
        for_each    = range(1, each.value + 1)
        name        = format("ts-%02d", each.value)
        type        = each.key == 0 ? "master" : "sensor"
        external_id = each.value > 1 ? null : "only-${each.key + length(local.stations)}-${each.value}" == "" ? "x" : null
        template    = "energy_meter"
        gateway     = "pump"

        limits {
          events_per_second = each.value
          burst             = 10 * each.value
        }
        override "these" {
          for_each    = { "Voltage, line to neutral" = "5s", running = null }
          name        = each.key
          stale_after = each.value
        }
      }
    }
  }
}
