policy {
  require_saved_plan = null # ERROR: Missing value
}
