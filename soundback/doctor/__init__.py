"""Can this machine do what the params ask for: looked at before the work, and said in one line each."""
