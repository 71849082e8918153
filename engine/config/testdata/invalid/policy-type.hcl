policy {
  require_saved_plan = "prod" # ERROR: Wrong type
}
