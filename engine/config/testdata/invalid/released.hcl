customer "acme" {
  project "mill" {
  }
}
released {
  from = "project.acme/mill" # ERROR: Released but declared
}
released {
  from = "project.acme/works"
}
released {
  from = "project.acme/works" # ERROR: Duplicate released
}
