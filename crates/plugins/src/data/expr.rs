//! A data program as a tree, simplified while it grows, and how `-D data.AST=1` shows it.

use super::program::Place;
use std::fmt::{self, Write};

/// A part of a program.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// No byte at all.
    Null,
    Byte(u8),
    /// Several bytes, or one that was written as a string.
    Text(Vec<u8>),
    /// A byte so many times.
    Fill(u8, u64),
    /// Goes to another place; nothing is written.
    Move(Move, Place),
    File(String, Place),
    Script(String, Place),
    Name(String, Place),
    /// Gives the value a name, and writes nothing.
    Assign(String, Box<Expr>),
    /// One behind the other, from 0 on, with names of its own.
    List(Vec<Expr>),
    Repeat(Box<Expr>, u64, Place),
    /// From a byte on to before another, or to the end.
    Slice(Box<Expr>, u64, Option<u64>, Place),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Move {
    To(u64),
    Forward(u64),
    Back(u64),
    /// To the next multiple of this power of 2.
    Align(u64),
}

/// Texts are written out rather than repeated up to so many times ...
const WRITTEN_OUT: u64 = 4;
/// ... if they have no more bytes than this.
const SHORT: usize = 1024;

impl Expr {
    /// Behind a list that ends here: only what is not simple stays a list.
    pub(super) fn list(mut items: Vec<Expr>) -> Expr {
        match &items[..] {
            [] => Expr::Null,
            [Expr::Move(..) | Expr::Assign(..)] => Expr::List(items),
            [_] => items.remove(0),
            _ => Expr::List(items),
        }
    }

    /// Appends to a list, joining with its last item what can be joined.
    pub(super) fn push(items: &mut Vec<Expr>, item: Expr) {
        use Expr::{Byte, Fill, List, Null, Text};
        match (items.last_mut(), item) {
            (_, Null) => {}
            (_, List(inner)) if !inner.iter().any(Expr::needs_scope) => {
                inner.into_iter().for_each(|item| Expr::push(items, item));
            }
            (Some(Text(text)), Byte(b)) => text.push(b),
            (Some(Text(text)), Text(more)) => text.extend(more),
            (Some(last @ Byte(_)), Text(more)) => {
                let Byte(first) = *last else { return };
                *last = Text([&[first], &more[..]].concat());
            }
            (Some(last @ Byte(_)), Byte(b)) => {
                let Byte(first) = *last else { return };
                *last = if first == b { Fill(b, 2) } else { Text(vec![first, b]) };
            }
            (Some(Fill(a, n)), Byte(b)) if *a == b && *n < u64::MAX => *n += 1,
            (Some(Fill(a, n)), Fill(b, m)) if *a == b && n.checked_add(m).is_some() => *n += m,
            (Some(last @ Byte(_)), Fill(b, m)) if *last == Byte(b) && m < u64::MAX => *last = Fill(b, m + 1),
            (_, item) => items.push(item),
        }
    }

    /// Whether a list with this item means something else when its items stand in another list.
    fn needs_scope(&self) -> bool {
        matches!(self, Expr::Move(..) | Expr::Assign(..))
    }

    /// What was written between quotes.
    pub(super) fn text(text: Vec<u8>) -> Expr {
        match &text[..] {
            [] => Expr::Null,
            [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|b| b == first) => {
                Expr::Fill(*first, text.len() as u64)
            }
            _ => Expr::Text(text),
        }
    }

    /// `self * count`; `None`: more than any disk has.
    pub(super) fn repeat(self, count: u64, place: Place) -> Option<Expr> {
        Some(match (self, count) {
            (Expr::Null, _) | (_, 0) => Expr::Null,
            (one, 1) => one,
            (Expr::Byte(b), n) => Expr::Fill(b, n),
            (Expr::Fill(b, m), n) => Expr::Fill(b, m.checked_mul(n)?),
            (Expr::Text(text), n) if n <= WRITTEN_OUT && text.len() <= SHORT => {
                Expr::Text(text.repeat(n as usize))
            }
            (Expr::Repeat(of, m, place), n) => Expr::Repeat(of, m.checked_mul(n)?, place),
            (of, n) => Expr::Repeat(Box::new(of), n, place),
        })
    }

    /// `self[from:to]`; `None`: that is not a part of it.
    pub(super) fn slice(self, from: u64, to: Option<u64>, place: Place) -> Option<Expr> {
        let len = match &self {
            Expr::Null => 0,
            Expr::Byte(_) => 1,
            Expr::Text(text) => text.len() as u64,
            Expr::Fill(_, n) => *n,
            _ if to.is_some_and(|to| to < from) => return None,
            _ => return Some(Expr::Slice(Box::new(self), from, to, place)),
        };
        let to = to.unwrap_or(len);
        if from > to || to > len {
            return None;
        }
        Some(match self {
            _ if from == to => Expr::Null,
            Expr::Text(text) => Expr::Text(text[from as usize..to as usize].to_vec()),
            Expr::Fill(b, _) => Expr::Fill(b, to - from),
            one => one,
        })
    }
}

/// One part per line, indented.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(f, 0)
    }
}

impl Expr {
    fn show(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = depth * 4;
        let group = |f: &mut fmt::Formatter<'_>, items: &[Expr], end: fmt::Arguments<'_>| {
            writeln!(f, "{:indent$}(", "")?;
            items.iter().try_for_each(|item| item.show(f, depth + 1))?;
            writeln!(f, "{:indent$}){end}", "")
        };
        let line = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>| writeln!(f, "{:indent$}{what}", "");
        match self {
            Expr::Null => line(f, format_args!("null")),
            Expr::Byte(b) => line(f, format_args!("{b}")),
            Expr::Text(text) => line(f, format_args!("\"{}\"", Printable(text))),
            Expr::Fill(b, n) => line(f, format_args!("fill({b}*{n})")),
            Expr::Move(Move::To(n), _) => line(f, format_args!("@{n}")),
            Expr::Move(Move::Forward(n), _) => line(f, format_args!("@+{n}")),
            Expr::Move(Move::Back(n), _) => line(f, format_args!("@-{n}")),
            Expr::Move(Move::Align(n), _) => line(f, format_args!("@^{n}")),
            Expr::File(path, _) => line(f, format_args!("<{path}")),
            Expr::Script(script, _) => line(f, format_args!("<({script})")),
            Expr::Name(name, _) => line(f, format_args!("\\{name}")),
            Expr::Assign(name, value) => group(f, std::slice::from_ref(value), format_args!(" -> \\{name}")),
            Expr::List(items) => group(f, items, format_args!("")),
            Expr::Repeat(of, n, _) => group(f, std::slice::from_ref(of), format_args!(" *{n}")),
            Expr::Slice(of, from, Some(to), _) => {
                group(f, std::slice::from_ref(of), format_args!("[{from}:{to}]"))
            }
            Expr::Slice(of, from, None, _) => group(f, std::slice::from_ref(of), format_args!("[{from}:-1]")),
        }
    }
}

struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b' '..=b'~' => f.write_char(char::from(*byte)),
            _ => write!(f, "\\x{byte:02x}"),
        })
    }
}
