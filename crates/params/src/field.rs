//! What a field's type says about how often its parameter is given.

use crate::{Arg, Args, Kind, Param, ParamError, Value, Wrong};

/// A field of a `Params` struct: `T`, `Option<T>` or `Vec<T>` of a [`Value`].
pub trait Field: Sized {
    /// What one value is.
    const KIND: Kind;
    /// Whether the parameter must be given when it has no default.
    const REQUIRED: bool;
    /// Whether each value counts, not just the last.
    const REPEATABLE: bool;

    /// Whether `text` is one value of the parameter: for checks that have only the table.
    fn accepts(text: &str) -> Result<(), Wrong>;

    /// Takes all values of `param` out of `args`.
    fn take(args: &mut Args, param: &Param) -> Result<Self, ParamError>;
}

impl<T: Value> Field for T {
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = true;
    const REPEATABLE: bool = false;

    fn accepts(text: &str) -> Result<(), Wrong> {
        T::from_text(text).map(drop)
    }

    fn take(args: &mut Args, param: &Param) -> Result<T, ParamError> {
        last(args, param)?.ok_or_else(|| ParamError::missing(param.key))
    }
}

impl<T: Value> Field for Option<T> {
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = false;
    const REPEATABLE: bool = false;

    fn accepts(text: &str) -> Result<(), Wrong> {
        T::from_text(text).map(drop)
    }

    fn take(args: &mut Args, param: &Param) -> Result<Option<T>, ParamError> {
        last(args, param)
    }
}

impl<T: Value> Field for Vec<T> {
    const KIND: Kind = T::KIND;
    const REQUIRED: bool = false;
    const REPEATABLE: bool = true;

    fn accepts(text: &str) -> Result<(), Wrong> {
        T::from_text(text).map(drop)
    }

    fn take(args: &mut Args, param: &Param) -> Result<Vec<T>, ParamError> {
        let given: Vec<T> = args.take(param).iter().map(parsed).collect::<Result<_, _>>()?;
        match default(param)? {
            Some(value) if given.is_empty() => Ok(vec![value]),
            _ => Ok(given),
        }
    }
}

/// The last value given, or the default. Values that lose are still checked: a typing error in a script
/// must not hide behind a later argument.
fn last<T: Value>(args: &mut Args, param: &Param) -> Result<Option<T>, ParamError> {
    let mut value = None;
    for arg in &args.take(param) {
        value = Some(parsed(arg)?);
    }
    if value.is_none() { default(param) } else { Ok(value) }
}

fn parsed<T: Value>(arg: &Arg) -> Result<T, ParamError> {
    T::from_arg(arg).map_err(|wrong| {
        let value = (!matches!(T::KIND, Kind::Secret)).then(|| arg.value.clone());
        ParamError::Bad { key: arg.key.clone(), value, why: wrong.0 }
    })
}

fn default<T: Value>(param: &Param) -> Result<Option<T>, ParamError> {
    let Some(text) = param.default else { return Ok(None) };
    T::from_text(text).map(Some).map_err(|wrong| ParamError::bad(param.key, text, wrong.0))
}

/// A value with its place on the command line, for components where two keys speak about the same thing
/// and the one further right wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its [`Arg::position`] plus one; 0 for a default.
    pub place: usize,
}

impl<T: Value> Value for Placed<T> {
    const KIND: Kind = T::KIND;

    fn from_text(text: &str) -> Result<Self, Wrong> {
        T::from_text(text).map(|value| Placed { value, place: 0 })
    }

    fn from_arg(arg: &Arg) -> Result<Self, Wrong> {
        T::from_arg(arg).map(|value| Placed { value, place: arg.position + 1 })
    }
}
