# ERROR: Nothing declared
