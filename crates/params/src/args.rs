//! The arguments of a stack: an ordered list of `key=value`, handed down from component to component.

use crate::{Param, ParamError, nearest_key};
use std::fmt;

/// One `key=value` as it stood on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Arg {
    /// The plain key; never empty.
    pub key: String,
    /// The value; may be empty and may hold further `=`.
    pub value: String,
    /// The argument's place among all arguments, from 0. Where two keys speak about the same thing, the
    /// one further right wins.
    pub position: usize,
}

/// The arguments that no component has taken yet, in their order on the command line.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Args {
    list: Vec<Arg>,
}

/// Values may be secrets, so only keys are shown.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|arg| &arg.key)).finish()
    }
}

impl Args {
    /// Arguments from keys and values.
    pub fn new<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Args {
        let list = pairs.into_iter().enumerate();
        Args {
            list: list.map(|(position, (k, v))| Arg { key: k.into(), value: v.into(), position }).collect(),
        }
    }

    /// Arguments as a user typed them after the plugin's name.
    ///
    /// `key=value` with a plain key (a letter, then letters, digits, `.`, `_`, `-`) stands for itself.
    /// Anything else is *bare* and belongs to the plugin's magic key, of which filters have none; an error
    /// when the plugin has none either.
    pub fn from_cli<S: AsRef<str>>(typed: &[S], magic: Option<&str>) -> Result<Args, ParamError> {
        let mut args = Args::default();
        for (position, text) in typed.iter().map(AsRef::as_ref).enumerate() {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) if is_plain_key(key) => (key, value),
                _ => match magic {
                    Some(magic) => (magic, text),
                    None => return Err(ParamError::Bare { text: text.to_owned() }),
                },
            };
            args.list.push(Arg { key: key.to_owned(), value: value.to_owned(), position });
        }
        Ok(args)
    }

    /// The key for bare arguments of the plugin with this table.
    pub fn magic_key(params: &[Param]) -> Option<&'static str> {
        params.iter().find(|param| param.magic).map(|param| param.key)
    }

    /// How many arguments are left.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What is left, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arg> {
        self.list.iter()
    }

    /// Takes every argument that is meant for `param`, by its key or an alias.
    pub fn take(&mut self, param: &Param) -> Vec<Arg> {
        self.list.extract_if(.., |arg| param.is_called(&arg.key)).collect()
    }

    /// Takes every argument that is meant for a component with this table, for it to parse later. So the
    /// components of a stack can share out their arguments from the top and start from the bottom.
    pub fn split(&mut self, params: &[Param]) -> Args {
        let theirs = |arg: &mut Arg| params.iter().any(|param| param.is_called(&arg.key));
        Args { list: self.list.extract_if(.., theirs).collect() }
    }

    /// As [`Args::split`], for a component that comes again below: of a parameter that can be given once, it takes the
    /// first and leaves the others for those below.
    pub fn split_first(&mut self, params: &[Param]) -> Args {
        let mut taken = vec![false; params.len()];
        let theirs = |arg: &mut Arg| {
            let Some(at) = params.iter().position(|param| param.is_called(&arg.key)) else { return false };
            !std::mem::replace(&mut taken[at], true) || params[at].repeatable
        };
        Args { list: self.list.extract_if(.., theirs).collect() }
    }

    /// Takes everything, as keys and values: for plugins that hand arguments on to a script.
    pub fn take_rest(&mut self) -> Vec<(String, String)> {
        self.list.drain(..).map(|arg| (arg.key, arg.value)).collect()
    }

    /// The error for what is left after every component has taken its own; `stack` names each component
    /// with its table, and a mistyped key is answered with the nearest key of any of them.
    pub fn finish(&self, stack: &[(&str, &[Param])]) -> Result<(), ParamError> {
        let Some(arg) = self.list.first() else { return Ok(()) };
        Err(ParamError::Unknown { key: arg.key.clone(), near: nearest_key(&arg.key, stack) })
    }
}

/// Whether `key` can stand before a `=`.
fn is_plain_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str], magic: Option<&str>) -> Vec<(String, String)> {
        Args::from_cli(words, magic).unwrap().take_rest()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn bare_arguments_go_to_the_magic_key_in_order() {
        assert_eq!(
            typed(&["a", "x=1", "b"], Some("file")),
            [pair("file", "a"), pair("x", "1"), pair("file", "b")]
        );
    }

    #[test]
    fn a_key_that_is_not_plain_makes_the_argument_bare() {
        for text in ["9a=3", "./a=b", "=x", "a b=c", "-a=1", "é=1", ""] {
            assert_eq!(typed(&[text], Some("file")), [pair("file", text)], "{text:?}");
        }
    }

    #[test]
    fn only_the_first_equals_sign_divides() {
        assert_eq!(typed(&["raw=a=b=c", "empty="], None), [pair("raw", "a=b=c"), pair("empty", "")]);
    }

    #[test]
    fn without_a_magic_key_a_bare_argument_is_an_error() {
        let error = Args::from_cli(&["x=1", "oops"], None).unwrap_err();
        assert_eq!(error.to_string(), "oops: expected key=value, and this plugin takes no bare argument");
    }

    #[test]
    fn debug_output_hides_values() {
        let shown = format!("{:?}", Args::new([("password", "hunter2")]));
        assert!(shown.contains("password") && !shown.contains("hunter2"));
    }
}
