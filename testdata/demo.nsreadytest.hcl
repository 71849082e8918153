# Tests of the demo estate. To run them:
#
#   nsready test -config nsready.hcl testdata/demo.nsreadytest.hcl
#
# 'nsready test -help' explains the blocks, and how the values of a series are written.

locals {
  incomer = "Sahyadri Mills/Energy/Substation/main-incomer"
  tank    = "WT-NORTH-1" # the external id of Ward north's tank-1
}

test "a high voltage alerts after 30 seconds" {
  # Ten good values, too high from 10s to 50s, inside the deadband for a while, and back to normal.
  series {
    device    = local.incomer
    parameter = "voltage"
    interval  = "1s"
    values    = "230x9 255x40 252x8 250"
  }
  expect_alert {
    device    = local.incomer
    threshold = "high"
    at        = "39s"
    state     = "pending"
  }
  expect_alert {
    device    = local.incomer
    threshold = "high"
    at        = "40s"
    state     = "firing"
    value     = 255
  }
  expect_alert {
    device    = local.incomer
    threshold = "high"
    at        = "58s"
    state     = "firing"
  }
  expect_alert {
    device    = local.incomer
    threshold = "high"
    at        = "1m"
    state     = "resolved"
    value     = 250
  }
  expect_alerts = 1
}

test "a voltage that wavers does not alert" {
  series {
    device    = local.incomer
    parameter = "voltage"
    interval  = "1s"
    values    = "254x10 250 254x10 250 _x60 254x10"
  }
  expect_no_alerts = true
}

test "a tank that fills" {
  series {
    device    = local.tank
    parameter = "level"
    interval  = "2s"
    values    = "80+1x25" # 105 in the end, which no tank can hold
  }
  expect_quality {
    device    = local.tank
    parameter = "level"
    at        = "40s"
    quality   = 192
  }
  expect_quality {
    device    = local.tank
    parameter = "level"
    at        = "50s"
    quality   = 84 # uncertain: outside of its range
  }
  expect_alert {
    device    = local.tank
    threshold = "nearly_full"
    at        = "42s"
    state     = "firing"
  }
}

test "a fraction of a pump's start is refused" {
  event {
    device = local.tank
    values = { pump_starts = 3, pump_running = 1 }
    expect = "accepted"
  }
  event {
    at     = "10s"
    device = local.tank
    values = { pump_starts = 3.5, pump_running = 1 }
    expect_error {
      code  = "type_violation"
      field = "metrics[1].value"
    }
  }
}

test "what is declared" {
  expect {
    customers = 3
    devices   = 26
  }
}
