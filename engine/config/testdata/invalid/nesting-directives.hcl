locals {
  a = "%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }%{ if true }" # ERROR: Nesting too deep
}
