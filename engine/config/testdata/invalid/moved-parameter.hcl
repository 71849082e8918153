customer "acme" {
  project "new" {
    parameter "voltage" {
    }
  }
  project "other" {
    parameter "current" {
    }
  }
}
moved {
  from = "project.acme/old"
  to   = "project.acme/new"
}
moved {
  from = "parameter.acme/old/volt" # its project moves too
  to   = "parameter.acme/new/voltage"
}
moved {
  from = "parameter.acme/old/current"
  to   = "parameter.acme/other/current" # ERROR: Parameter moved to another project
}
