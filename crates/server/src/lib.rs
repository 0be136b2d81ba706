//! Serves one Backend over NBD, whatever it is.
