//! The kit that every plugin and filter must pass.
