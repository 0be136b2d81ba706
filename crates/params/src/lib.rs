//! `key=value` parameters, declared once.
//!
//! A plugin or filter declares its parameters as a struct; the derive emits a table ([`Params::PARAMS`])
//! and a parser. Parsing, `--help`, `--dump-plugin`, the PARAMETERS section of the manual and shell
//! completion are plain functions over that table ([`help`]). This is the lowest crate of the house: it
//! knows nothing about disks.
//!
//! ```
//! use params::{Args, Params, Size};
//!
//! /// Serve a local file or block device.
//! #[derive(Params)]
//! struct File {
//!     /// The file to serve.
//!     #[param(magic)]
//!     file: std::path::PathBuf,
//!     /// Read-ahead granularity.
//!     #[param(default = "64K", alias = "block")]
//!     block_size: Size,
//! }
//!
//! let mut args = Args::from_cli(&["disk.img", "block=1M", "rdelay=5"], Args::magic_key(File::PARAMS))?;
//! let file = File::parse(&mut args)?;
//! assert_eq!(file.block_size.bytes(), 1 << 20);
//! assert_eq!(args.len(), 1); // rdelay is left for the next component
//! # assert!(file.file.is_absolute());
//! # Ok::<(), params::ParamError>(())
//! ```
#![deny(unsafe_code)] // allowed in `inherited` alone

// The derive writes `::params::...`, which must resolve in this crate's own tests too.
extern crate self as params;

mod args;
mod choice;
mod delay;
mod error;
mod field;
pub mod help;
#[allow(unsafe_code, reason = "a descriptor's number becomes a descriptor")]
mod inherited;
mod nearest;
mod number;
mod probability;
mod secret;
mod size;
pub mod table;
mod value;

pub use args::{Arg, Args};
pub use choice::{Choice, parse_choice};
pub use delay::Delay;
pub use error::{ParamError, Wrong};
pub use field::{Field, Placed};
pub use inherited::take as take_inherited;
pub use nearest::nearest_key;
pub use params_derive::{Choice, Params};
pub use probability::Probability;
pub use secret::Secret;
pub use size::Size;
pub use table::{Kind, Param, join, total};
pub use value::Value;

/// A component's parameters: what it accepts, and itself once they are given. Derive it.
pub trait Params: Sized {
    /// What the component is, in one line.
    const SUMMARY: &'static str;
    /// The rest of the component's doc comment (markdown); may be empty.
    const DETAILS: &'static str;
    /// Every parameter, in the order of the fields.
    const PARAMS: &'static [Param];

    /// Takes the parameters that this component declares out of `args` and leaves the rest for the next
    /// component down. A key given twice counts the last time (every value is still checked), unless it
    /// is repeatable.
    fn parse(args: &mut Args) -> Result<Self, ParamError>;
}
