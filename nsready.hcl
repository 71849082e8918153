# The demo estate: everything that NSReady shall know, in one file.
#
# How to read it: a block is a word, mostly a name in quotes, and what is between the braces. Inside, NAME = VALUE sets
# an attribute, and blocks inside a block belong to it: this customer has this project has this site has this device.
# A # begins a comment. Try changing something, then run:
#
#   nsready validate     is the file right?
#   nsready plan         what would change?
#   nsready apply        change it

# Values to use more than once, as local.NAME.
locals {
  good = 192 # the OPC quality code for a good value
  # A spreadsheet of meters, one row for each; its first row names the columns.
  meters = csvdecode(file("testdata/demo-meters.csv"))
}

# How long telemetry is kept. TimescaleDB, where it is installed, compresses what is older than compress_after.
retention {
  raw            = "90d"
  compress_after = "7d"
}

# Limits of the platform's own health. /metrics exports them for alert rules, /v1/health judges the queue by them.
platform "queue_depth" {
  warning  = 1000
  critical = 10000
}

platform "error_rate" {
  warning  = "1%"
  critical = "5%"
}

platform "latency_p95" {
  warning = "5s"
}

platform "disk_usage" {
  critical = "90%"
}

platform "database_size" {
  warning = "80%"
}

platform "memory_usage" {
  warning = "80%"
}

# A template is a set of parameters that many devices send. A value outside min and max is stored with a lower quality,
# unless on_violation says otherwise. A threshold raises an alert when a value stays above or below a limit.
template "energy_meter" {
  parameter "voltage" {
    name            = "Voltage"
    unit            = "V"
    min             = 0
    max             = 480
    required        = true
    interval        = "1s"
    default_quality = local.good

    threshold "high" {
      above    = 253
      for      = "30s" # this long, before the alert fires
      deadband = 2     # back below 251, before it clears
      severity = "warning"
    }
    threshold "low" {
      below    = 207
      for      = "30s"
      deadband = 2
      severity = "critical"
    }
  }

  parameter "current" {
    name            = "Current"
    unit            = "A"
    min             = 0
    max             = 630
    required        = true
    interval        = "1s"
    default_quality = local.good

    threshold "overload" {
      above    = 500
      for      = "1m"
      deadband = 20
      severity = "critical"
    }
  }

  parameter "power" {
    name            = "Active Power"
    unit            = "kW"
    min             = -50 # solar panels feed back
    max             = 400
    interval        = "1s"
    default_quality = local.good
  }

  parameter "power_factor" {
    name            = "Power Factor"
    unit            = "" # a ratio has none
    min             = -1
    max             = 1
    interval        = "5s"
    default_quality = local.good

    threshold "poor" {
      below    = 0.85
      for      = "5m"
      deadband = 0.02
    }
  }

  parameter "energy" {
    name            = "Energy Imported"
    unit            = "kWh"
    min             = 0
    interval        = "10s"
    description     = "The meter's own counter."
    default_quality = local.good
  }
}

template "water_tank" {
  parameter "level" {
    name            = "Tank Level"
    unit            = "%"
    min             = 0
    max             = 100
    required        = true
    interval        = "2s"
    default_quality = local.good

    threshold "nearly_full" {
      above    = 95
      for      = "10s"
      deadband = 3
      severity = "critical"
    }
    threshold "nearly_empty" {
      below    = 10
      for      = "1m"
      deadband = 3
    }
  }

  parameter "flow" {
    name            = "Inflow"
    unit            = "m³/h"
    min             = 0
    max             = 120
    interval        = "2s"
    default_quality = local.good
  }

  parameter "pump_running" {
    name            = "Pump Running"
    type            = "bool" # 0 or 1
    interval        = "5s"
    default_quality = local.good
  }

  parameter "pump_starts" {
    name            = "Pump Starts"
    type            = "int"
    min             = 0
    interval        = "10s"
    on_violation    = "reject" # a fraction of a start is nonsense: refuse it
    default_quality = local.good
  }
}

template "cold_room" {
  parameter "temperature" {
    name            = "Room Temperature"
    unit            = "°C"
    min             = -40
    max             = 60
    required        = true
    interval        = "2s"
    default_quality = local.good

    threshold "thawing" {
      above    = -15
      for      = "2m"
      deadband = 1
      severity = "critical"
    }
  }

  parameter "humidity" {
    name            = "Humidity"
    unit            = "%"
    min             = 0
    max             = 100
    interval        = "10s"
    default_quality = local.good
  }

  parameter "door_open" {
    name            = "Door Open"
    type            = "bool"
    interval        = "2s"
    default_quality = local.good
  }
}

# A group that owns others. It sees their data together in reports; they don't see each other's.
customer "Sahyadri Group" {
  metadata = { industry = "conglomerate", country = "IN" }
}

customer "Sahyadri Mills" {
  parent   = "Sahyadri Group"
  metadata = { industry = "textiles" }

  project "Energy" {
    description = "Electricity of the spinning and weaving mill"
    templates   = ["energy_meter"]

    # A parameter that only this project has.
    parameter "transformer_temperature" {
      name            = "Transformer Oil Temperature"
      unit            = "°C"
      min             = -10
      max             = 120
      interval        = "5s"
      default_quality = local.good

      threshold "hot" {
        above    = 85
        for      = "5m"
        deadband = 3
      }
      threshold "trip" {
        above    = 95
        for      = "10s"
        deadband = 3
        severity = "critical"
      }
    }

    site "Substation" {
      location = { city = "Ichalkaranji", latitude = 16.69, longitude = 74.46 }

      # One device, written out. external_id is the name that it knows itself by.
      device "main-incomer" {
        type        = "meter"
        external_id = "EM-MILL-MAIN"
        interval    = "1s"
        template    = "energy_meter"
        parameters  = ["transformer_temperature"] # beside those of the template
      }
    }

    site "Mill Floor" {
      location = { city = "Ichalkaranji", building = "A" }

      # One device for each row of the spreadsheet.
      device "feeder" {
        for_each    = local.meters
        name        = each.value.name
        type        = "meter"
        external_id = each.value.external_id
        interval    = each.value.interval
        template    = "energy_meter"
      }
    }
  }
}

customer "Godavari Water" {
  metadata = { industry = "water supply" }

  project "Tanks" {
    description = "Overhead tanks of the district"

    # One site for each key, each with two tanks.
    site "ward" {
      for_each = { north = "Nashik Road", south = "Deolali", east = "Adgaon" }
      name     = "Ward ${each.key}"
      location = { city = "Nashik", locality = each.value }

      # The name of a device need only be unique in its site.
      device "tank-1" {
        type        = "controller"
        external_id = "WT-${upper(each.key)}-1"
        template    = "water_tank"
      }
      device "tank-2" {
        type        = "controller"
        external_id = "WT-${upper(each.key)}-2"
        template    = "water_tank"
      }
    }
  }

  project "Cold Store" {
    description = "Rented cold rooms beside the water works"

    site "Ozar" {
      location = { city = "Ozar", latitude = 20.09, longitude = 73.93 }

      # Ten devices: range(1, 11) is the numbers from 1 to 10.
      device "room" {
        for_each    = range(1, 11)
        name        = format("room-%02d", each.value)
        type        = "sensor"
        external_id = format("CR-%02d", each.value)
        template    = "cold_room"
      }

      # A device in the workshop. It may send, whatever its status; the status is for people.
      device "room-spare" {
        type       = "sensor"
        status     = "maintenance"
        parameters = ["temperature"]
      }
    }
  }
}
