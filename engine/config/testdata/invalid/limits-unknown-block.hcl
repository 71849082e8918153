limits {
  devices { # ERROR: Unsupported block type
    events_per_second = 10
    burst             = 10
  }
}
customer "Acme" {
  limits {
    customer { # ERROR: Unsupported block type
      events_per_second = 10
      burst             = 10
    }
  }
}
