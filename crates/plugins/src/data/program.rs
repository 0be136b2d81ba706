//! The texts that a program is made of, and errors that say where in them.

use disk::Error;
use std::sync::Arc;

/// A place in one of the texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// Which text.
    pub(super) text: u32,
    /// The byte in it.
    pub(super) at: usize,
}

/// What is wrong at a place.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn at(place: Place, why: impl Into<String>) -> Fault {
        Fault { place, why: why.into() }
    }
}

/// All texts: the parameter, and each variable as often as it was substituted.
#[derive(Default)]
pub(super) struct Texts(Vec<Text>);

struct Text {
    /// The variable whose value it is, and where that was substituted.
    variable: Option<(String, Place)>,
    text: Arc<str>,
}

/// How much of a text an error quotes, in characters.
const QUOTED: usize = 20;

impl Texts {
    /// Adds a text; its number.
    pub(super) fn add(&mut self, variable: Option<(String, Place)>, text: Arc<str>) -> u32 {
        self.0.push(Text { variable, text });
        self.0.len() as u32 - 1
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether this text, or one that it stands in, is the value of a variable.
    pub(super) fn is_inside(&self, variable: &str, text: u32) -> bool {
        let mut text = text;
        while let Some((name, place)) = &self.0[text as usize].variable {
            if name == variable {
                return true;
            }
            text = place.text;
        }
        false
    }

    /// `in $name, at offset 5, "x y z": not an expression`.
    pub(super) fn error(&self, fault: &Fault) -> Error {
        let text = &self.0[fault.place.text as usize];
        let inside = match &text.variable {
            Some((name, _)) => format!("in ${name}, "),
            None => String::new(),
        };
        let at = fault.place.at;
        let near = match text.text.get(at..).filter(|rest| !rest.is_empty()) {
            Some(rest) => format!(", {:?}", rest.chars().take(QUOTED).collect::<String>()),
            None => String::new(),
        };
        Error::invalid(format!("{inside}at offset {at}{near}: {}", fault.why))
    }
}
