//! From the tree of a program to its bytes: files are read and scripts run now.

use super::{
    expr::{Expr, Move},
    input,
    layers::Layers,
    node::Node,
    parse::NOT_A_PART,
    program::{Fault, Place},
};
use std::{collections::HashMap, sync::Arc};

/// What the program makes.
pub(super) fn evaluate(program: &Expr) -> Result<Arc<Node>, Fault> {
    Evaluation::default().node(program)
}

#[derive(Default)]
struct Evaluation<'a> {
    /// What each name means here.
    names: HashMap<&'a str, Arc<Node>>,
    /// What the names meant that were given a new meaning, for the end of the scope.
    before: Vec<(&'a str, Option<Arc<Node>>)>,
    /// The last place that something could be wrong with, for errors that belong to no one place.
    last: Option<Place>,
}

impl<'a> Evaluation<'a> {
    fn here(&self, why: &'static str) -> Fault {
        Fault::at(self.last.unwrap_or(Place { text: 0, at: 0 }), why)
    }

    fn node(&mut self, expr: &'a Expr) -> Result<Arc<Node>, Fault> {
        let made = match expr {
            Expr::Null => Node::zeroes(0),
            Expr::Byte(byte) => Node::fill(*byte, 1),
            Expr::Text(text) => Node::bytes(text.clone()),
            Expr::Fill(byte, len) => Node::fill(*byte, *len),
            Expr::File(path, place) => return self.input(*place, input::file(path, 0, None)),
            Expr::Script(script, place) => return self.input(*place, input::script(script, None)),
            Expr::Name(name, place) => {
                self.last = Some(*place);
                let known = self.names.get(name.as_str()).cloned();
                return known.ok_or_else(|| Fault::at(*place, format!("\\{name} is not defined here")));
            }
            Expr::List(items) => return self.list(items),
            // Only in lists; alone they write nothing.
            Expr::Move(..) | Expr::Assign(..) => return self.list(std::slice::from_ref(expr)),
            Expr::Repeat(of, count, place) => {
                let of = self.node(of)?;
                self.last = Some(*place);
                Node::repeat(&of, *count)
            }
            Expr::Slice(of, from, to, place) => return self.slice(of, *from, *to, *place),
        };
        made.map_err(|why| self.here(why))
    }

    fn input(&mut self, place: Place, read: disk::Result<Arc<Node>>) -> Result<Arc<Node>, Fault> {
        self.last = Some(place);
        read.map_err(|e| Fault::at(place, e.to_string()))
    }

    /// Takes no more from files and scripts than is wanted: some have no end.
    fn slice(&mut self, of: &'a Expr, from: u64, to: Option<u64>, place: Place) -> Result<Arc<Node>, Fault> {
        let node = match of {
            // A file that ends before the slice does gives what it has, as in nbdkit.
            Expr::File(path, at) => return self.input(*at, input::file(path, from, to)),
            Expr::Script(script, at) => {
                let node = self.input(*at, input::script(script, to))?;
                if from == 0 {
                    return Ok(node);
                }
                node
            }
            _ => self.node(of)?,
        };
        self.last = Some(place);
        let to = to.unwrap_or(node.len);
        if from > to || to > node.len {
            return Err(Fault::at(place, NOT_A_PART));
        }
        Node::part(&node, from, to - from).map_err(|why| Fault::at(place, why))
    }

    fn list(&mut self, items: &'a [Expr]) -> Result<Arc<Node>, Fault> {
        let outer = self.before.len();
        let mut layers = Layers::default();
        for item in items {
            match item {
                Expr::Move(step, place) => {
                    self.last = Some(*place);
                    let to = target(*step, layers.at).map_err(|why| Fault::at(*place, why))?;
                    layers.go(to).map_err(|why| Fault::at(*place, why))?;
                }
                Expr::Assign(name, value) => {
                    let value = self.node(value)?;
                    let before = self.names.insert(name, value);
                    self.before.push((name, before));
                }
                item => {
                    let node = self.node(item)?;
                    layers.put(node).map_err(|why| self.here(why))?;
                }
            }
        }
        for (name, before) in self.before.drain(outer..).rev() {
            match before {
                Some(before) => self.names.insert(name, before),
                None => self.names.remove(name),
            };
        }
        layers.finish().map_err(|why| self.here(why))
    }
}

fn target(step: Move, at: u64) -> Result<u64, String> {
    Ok(match step {
        Move::To(to) => to,
        Move::Forward(by) => at.saturating_add(by),
        Move::Back(by) => {
            at.checked_sub(by).ok_or_else(|| format!("this goes before byte 0: the offset is {at}"))?
        }
        Move::Align(to) => at.checked_next_multiple_of(to).unwrap_or(u64::MAX),
    })
}
