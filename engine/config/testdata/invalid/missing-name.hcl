customer { # ERROR: Missing name for customer
}
