policy {
  require_saved_plan = true
}
policy { # ERROR: Duplicate policy
  require_saved_plan = false
}
