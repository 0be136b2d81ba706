//! `diskpipe serve`, also known as `nbdkit`.

mod debug_flag;
mod options;
mod run;
