//! copy, info and the other tools.
