customer "Acme" {
  project "energy" {
    description = <<EOT # ERROR: Invalid heredoc
hello
EOT
  }
}
