retention {
  raw = "90d"
}
/* this never ends # ERROR: Unclosed comment
