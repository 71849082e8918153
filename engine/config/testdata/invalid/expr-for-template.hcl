customer "Acme" {
  project "energy" {
    description = "%{ for a in range(3) }${a}%{ endfor }" # ERROR: Unsupported expression
  }
}
