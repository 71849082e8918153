declaration {
  name = "north"
}
declaration { # ERROR: Duplicate declaration
  name = "south"
}
customer "acme" {
}
