customer "Acme" {
  parent = env("NSREADY_NO_SUCH_VARIABLE") # ERROR: Environment variable not set
}
