//! What can be wrong with parameters, told as sentences.

use std::fmt;

/// Why a text is not a value of its type: the part of the sentence after `key=value: `, such as
/// `not a size such as 512, 64K or 1M`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(pub String);

impl From<&str> for Wrong {
    fn from(why: &str) -> Wrong {
        Wrong(why.to_owned())
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Wrong {
        Wrong(why)
    }
}

/// A parameter that cannot be accepted. `Display` is one sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamError {
    /// The value is not of the parameter's type.
    Bad {
        /// The key as the user typed it.
        key: String,
        /// The value; `None` hides a secret.
        value: Option<String>,
        /// What is wrong with it.
        why: String,
    },
    /// A required parameter is absent.
    Missing {
        /// Its key.
        key: String,
    },
    /// An argument without `key=` for a plugin that has no magic key.
    Bare {
        /// The argument.
        text: String,
    },
    /// No component of the stack declares the key.
    Unknown {
        /// The key as the user typed it.
        key: String,
        /// A declared key that is nearly the same, and the component that declares it.
        near: Option<(String, String)>,
    },
    /// Anything else that a component finds wrong with its parameters together.
    Other(String),
}

impl ParamError {
    /// The value of `key` is wrong: `why` continues the sentence `key=value: `.
    pub fn bad(key: impl Into<String>, value: impl Into<String>, why: impl Into<String>) -> ParamError {
        ParamError::Bad { key: key.into(), value: Some(value.into()), why: why.into() }
    }

    /// `key` must be given.
    pub fn missing(key: impl Into<String>) -> ParamError {
        ParamError::Missing { key: key.into() }
    }

    /// A whole sentence about several parameters together.
    pub fn other(sentence: impl Into<String>) -> ParamError {
        ParamError::Other(sentence.into())
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamError::Bad { key, value: Some(value), why } => write!(f, "{key}={value}: {why}"),
            ParamError::Bad { key, value: None, why } => write!(f, "{key}: {why}"),
            // Scripts written for nbdkit look for "you must supply the KEY=".
            ParamError::Missing { key } => {
                write!(f, "{key} is required: you must supply the {key}= parameter")
            }
            ParamError::Bare { text } => {
                write!(f, "{text}: expected key=value, and this plugin takes no bare argument")
            }
            ParamError::Unknown { key, near: None } => write!(f, "unknown parameter '{key}'"),
            ParamError::Unknown { key, near: Some((near, of)) } => {
                write!(f, "unknown parameter '{key}': did you mean {near}= of {of}?")
            }
            ParamError::Other(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for ParamError {}
