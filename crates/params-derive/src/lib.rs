//! The derive macro behind params.
