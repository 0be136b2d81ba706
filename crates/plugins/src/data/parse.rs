//! From text to tree, in one pass.

use super::{
    expr::{Expr, Move},
    program::{Fault, Place, Texts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::sync::Arc;

/// Parentheses and operators may be nested so deep.
const MAX_DEPTH: usize = 250;
/// Variables may be substituted so often, ...
const MAX_TEXTS: usize = 10_000;
/// ... and their values may have so many bytes in all.
const MAX_TEXT: usize = 64 << 20;

/// The largest size of a disk.
const MAX_SIZE: u64 = i64::MAX as u64;

/// The value of a variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a program. What is wrong with it can be shown with the texts, which are filled in any case.
pub(super) fn parse(program: &str, variables: Lookup<'_>, texts: &mut Texts) -> Result<Expr, Fault> {
    let text: Arc<str> = program.into();
    let number = texts.add(None, text.clone());
    let mut all = Shared { variables, texts, bytes: 0 };
    let parser = Parser { text: text.as_bytes(), at: 0, number, depth: 0, all: &mut all };
    Ok(parser.whole()?.expr)
}

/// What the parsers of all texts share.
struct Shared<'a> {
    variables: Lookup<'a>,
    texts: &'a mut Texts,
    /// Of variables, so far.
    bytes: usize,
}

/// A tree and how high it is.
struct Tree {
    expr: Expr,
    height: usize,
}

impl Tree {
    fn leaf(expr: Expr) -> Tree {
        Tree { expr, height: 0 }
    }
}

struct Parser<'a, 'b> {
    text: &'a [u8],
    at: usize,
    /// Of the text.
    number: u32,
    /// How many parentheses and variables are open.
    depth: usize,
    all: &'a mut Shared<'b>,
}

type Parsed<T> = Result<T, Fault>;

impl Parser<'_, '_> {
    fn place(&self) -> Place {
        Place { text: self.number, at: self.at }
    }

    fn fault<T>(&self, why: impl Into<String>) -> Parsed<T> {
        Err(Fault::at(self.place(), why))
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let here = self.rest().starts_with(token.as_bytes());
        self.at += if here { token.len() } else { 0 };
        here
    }

    /// Skips blanks and comments.
    #[inline]
    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'#' => self.at += self.rest().iter().position(|b| *b == b'\n').unwrap_or(self.rest().len()),
                _ => break,
            }
        }
    }

    /// Everything up to the end of the text.
    fn whole(mut self) -> Parsed<Tree> {
        let tree = self.list()?;
        match self.peek() {
            None => Ok(tree),
            Some(_) => self.fault("this ) closes no ("),
        }
    }

    /// Expressions up to the end, or to a closing parenthesis.
    fn list(&mut self) -> Parsed<Tree> {
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            self.skip_blanks();
            self.plain_bytes(&mut items);
            match self.peek() {
                None | Some(b')') => return Ok(Tree { expr: Expr::list(items), height: height + 1 }),
                _ => {}
            }
            let start = self.place();
            let mut item = self.atom()?;
            loop {
                self.skip_blanks();
                item = match self.peek() {
                    Some(b'*') => self.repeat(item)?,
                    Some(b'[') => self.slice(item)?,
                    Some(b'-') if self.rest().starts_with(b"->") => {
                        self.refuse_move(&item, "->")?;
                        self.at += 2;
                        self.skip_blanks();
                        let name = self.name("-> must be followed by a \\NAME")?;
                        items.push(Expr::Assign(name, Box::new(item.expr)));
                        Tree { expr: Expr::Null, height: item.height + 1 }
                    }
                    _ => break,
                };
                if item.height + self.depth > MAX_DEPTH {
                    return Err(too_deep(start));
                }
            }
            height = height.max(item.height);
            Expr::push(&mut items, item.expr);
        }
    }

    /// What long programs consist of: decimal bytes with a blank behind each, which no operator is applied to.
    fn plain_bytes(&mut self, items: &mut Vec<Expr>) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\n');
        loop {
            let rest = self.rest();
            let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
            let (number, behind) = rest.split_at(digits);
            let blanks = behind.iter().take_while(|byte| blank(byte)).count();
            let next = behind.get(blanks);
            let is_octal = digits > 1 && number[0] == b'0';
            if is_octal
                || blanks == 0
                || matches!(next, None | Some(b'*' | b'[' | b'-' | b'#' | b'\t'..=b'\r'))
            {
                return;
            }
            match number.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0')) {
                byte @ 0..=255 if digits > 0 => Expr::push(items, Expr::Byte(byte as u8)),
                _ => return,
            }
            self.at += digits + blanks;
        }
    }

    #[inline]
    fn atom(&mut self) -> Parsed<Tree> {
        let place = self.place();
        let expr = match self.peek() {
            Some(b'0'..=b'9') => {
                let number = self.number("a byte")?;
                match u8::try_from(number) {
                    Ok(byte) => Expr::Byte(byte),
                    Err(_) => return Err(Fault::at(place, format!("{number}: a byte is 0 to 255"))),
                }
            }
            Some(b'"') => Expr::text(self.string()?),
            Some(b'(') => return self.group(),
            Some(b'@') => self.offset()?,
            Some(b'<') => self.input()?,
            Some(b'$') => return self.variable(),
            Some(b'\\') => Expr::Name(self.name("a name is letters, digits, - and _ behind the \\")?, place),
            Some(b'b') if self.rest().starts_with(b"base64:") => self.base64()?,
            Some(b'l' | b'b') => self.word()?,
            Some(b'*') => return self.fault("*N must follow an expression"),
            Some(b'[') => return self.fault("[N:M] must follow an expression"),
            Some(b'-') if self.rest().starts_with(b"->") => {
                return self.fault("-> must follow an expression");
            }
            _ => {
                return self.fault(
                    "not an expression: a byte, \"string\", le16:N, base64:..., @OFFSET, <FILE, <(SCRIPT), ( ... ), $VAR or \\NAME",
                );
            }
        };
        Ok(Tree::leaf(expr))
    }

    /// A number in C's notation, at which the text stands or ought to.
    #[inline]
    fn number(&mut self, what: &str) -> Parsed<u64> {
        let place = self.place();
        let (prefix, base) = match self.rest() {
            [b'0', b'x' | b'X', ..] => (2, 16),
            [b'0', b'0'..=b'9', ..] => (1, 8),
            _ => (0, 10),
        };
        self.at += prefix;
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(base)) {
            let next = value.checked_mul(base.into()).and_then(|v| v.checked_add(digit.into()));
            value = match next {
                Some(next) => next,
                None => return Err(Fault::at(place, "a number too large")),
            };
            self.at += 1;
        }
        match self.peek() {
            // C's scanner would take "08" for "0 8", which is never meant.
            Some(b'0'..=b'9') => {
                Err(Fault::at(place, "not octal: a number that begins with 0 has digits up to 7"))
            }
            Some(b'-') if self.at == start => Err(Fault::at(place, format!("{what} must not be negative"))),
            _ if self.at == start => Err(Fault::at(place, format!("{what} must be a number"))),
            _ => Ok(value),
        }
    }

    /// A number where blanks and a plus sign may come first, and `k`, `M` or the like follow a decimal one.
    fn amount(&mut self, what: &str) -> Parsed<u64> {
        self.skip_blanks();
        self.eat("+");
        let place = self.place();
        let is_decimal = !self.rest().starts_with(b"0");
        let number = self.number(what)?;
        let shift = match self.peek() {
            Some(suffix) if is_decimal => b"kmgtpe".iter().position(|s| *s == suffix.to_ascii_lowercase()),
            _ => None,
        };
        self.at += usize::from(shift.is_some());
        match number.saturating_mul(1 << shift.map_or(0, |power| 10 * (power + 1))) {
            number if number <= MAX_SIZE => Ok(number),
            _ => Err(Fault::at(place, format!("{what} is larger than a disk can be"))),
        }
    }

    /// `"STRING"`.
    fn string(&mut self) -> Parsed<Vec<u8>> {
        let open = self.place();
        let unterminated = || Fault::at(open, "a string that is never closed");
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let plain =
                self.rest().iter().position(|b| matches!(b, b'"' | b'\\')).ok_or_else(unterminated)?;
            text.extend(&self.rest()[..plain]);
            self.at += plain + 1;
            if self.text[self.at - 1] == b'"' {
                return Ok(text);
            }
            let escape = Place { at: self.at - 1, ..open };
            let byte = self.peek().ok_or_else(unterminated)?;
            self.at += 1;
            match byte {
                b'a' => text.push(7),
                b'b' => text.push(8),
                b't' => text.push(b'\t'),
                b'n' => text.push(b'\n'),
                b'v' => text.push(11),
                b'f' => text.push(12),
                b'r' => text.push(b'\r'),
                b'x' => text.push(self.digits(escape, 16, 2, 2)? as u8),
                b'0'..=b'7' => {
                    self.at -= 1;
                    match u8::try_from(self.digits(escape, 8, 1, 3)?) {
                        Ok(byte) => text.push(byte),
                        Err(_) => return Err(Fault::at(escape, "\\NNN is at most \\377")),
                    }
                }
                b'u' | b'U' => {
                    let digits = if byte == b'u' { 4 } else { 8 };
                    match char::from_u32(self.digits(escape, 16, digits, digits)?) {
                        Some(c) => text.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                        None => return Err(Fault::at(escape, "not a character of Unicode")),
                    }
                }
                other => text.push(other),
            }
        }
    }

    /// So many digits of an escape sequence.
    fn digits(&mut self, escape: Place, base: u32, least: usize, most: usize) -> Parsed<u32> {
        let (mut value, mut count) = (0, 0);
        while count < most
            && let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(base))
        {
            value = value * base + digit;
            count += 1;
            self.at += 1;
        }
        if count < least {
            return Err(Fault::at(escape, format!("this must be followed by {least} hexadecimal digits")));
        }
        Ok(value)
    }

    /// `( ... )`.
    fn group(&mut self) -> Parsed<Tree> {
        let open = self.place();
        if self.depth >= MAX_DEPTH {
            return Err(too_deep(open));
        }
        self.at += 1;
        self.depth += 1;
        let tree = self.list()?;
        self.depth -= 1;
        match self.eat(")") {
            true => Ok(tree),
            false => Err(Fault::at(open, "this ( is never closed")),
        }
    }

    /// `@OFFSET`, `@+N`, `@-N`, `@^ALIGNMENT`.
    fn offset(&mut self) -> Parsed<Expr> {
        let place = self.place();
        self.at += 1;
        let step = match self.peek() {
            Some(b'+') => {
                self.at += 1;
                Move::Forward(self.amount("N after @+")?)
            }
            Some(b'-') => {
                self.at += 1;
                Move::Back(self.amount("N after @-")?)
            }
            Some(b'^') => {
                self.at += 1;
                let alignment = self.amount("the alignment after @^")?;
                if !alignment.is_power_of_two() {
                    return Err(Fault::at(place, "the alignment after @^ must be a power of 2"));
                }
                Move::Align(alignment)
            }
            Some(b'0'..=b'9') => Move::To(self.amount("the offset after @")?),
            _ => return Err(Fault::at(place, "the offset after @ must be a number")),
        };
        Ok(Expr::Move(step, place))
    }

    /// `<FILE` or `<(SCRIPT)`.
    fn input(&mut self) -> Parsed<Expr> {
        let place = self.place();
        self.at += 1;
        if self.peek() == Some(b'(') {
            return self.script(place);
        }
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, 0x0b | b'*' | b'[' | b')');
        let len = self.rest().iter().position(ends).unwrap_or(self.rest().len());
        if len == 0 {
            return Err(Fault::at(place, "< must be followed by the name of a file, or by (SCRIPT)"));
        }
        let name = String::from_utf8_lossy(&self.rest()[..len]).into_owned();
        self.at += len;
        Ok(Expr::File(name, place))
    }

    fn script(&mut self, place: Place) -> Parsed<Expr> {
        let (mut open, start) = (0, self.at + 1);
        for (n, byte) in self.rest().iter().enumerate() {
            match byte {
                b'(' => open += 1,
                b')' => open -= 1,
                _ => continue,
            }
            if open == 0 {
                let script = String::from_utf8_lossy(&self.text[start..self.at + n]).into_owned();
                self.at += n + 1;
                return Ok(Expr::Script(script, place));
            }
        }
        Err(Fault::at(place, "a script that is never closed; its parentheses must come in pairs"))
    }

    /// `$VAR`: its value, as if it stood here in parentheses.
    fn variable(&mut self) -> Parsed<Tree> {
        let place = self.place();
        self.at += 1;
        let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let len = self.rest().iter().position(|b| !part(b)).unwrap_or(self.rest().len());
        let name = String::from_utf8_lossy(&self.rest()[..len]).into_owned();
        self.at += len;
        if name.is_empty() {
            return Err(Fault::at(place, "$ must be followed by the name of a variable"));
        }
        if self.all.texts.is_inside(&name, self.number) {
            return Err(Fault::at(place, format!("the value of ${name} refers to itself")));
        }
        let Some(value) = (self.all.variables)(&name) else {
            return Err(Fault::at(place, format!("${name}: neither a parameter nor in the environment")));
        };
        self.all.bytes += value.len();
        if self.all.texts.count() >= MAX_TEXTS || self.all.bytes > MAX_TEXT {
            return Err(Fault::at(place, "variables are substituted too often"));
        }
        if self.depth >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        let text: Arc<str> = value.into();
        let number = self.all.texts.add(Some((name, place)), text.clone());
        let depth = self.depth + 1;
        Parser { text: text.as_bytes(), at: 0, number, depth, all: self.all }.whole()
    }

    /// `\NAME`.
    fn name(&mut self, otherwise: &str) -> Parsed<String> {
        let place = self.place();
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let rest = self.rest().strip_prefix(b"\\").unwrap_or_default();
        let len = rest.iter().position(|b| !part(b)).unwrap_or(rest.len());
        if len == 0 {
            return Err(Fault::at(place, otherwise));
        }
        let name = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(name)
    }

    /// `le16:WORD` and its like.
    fn word(&mut self) -> Parsed<Expr> {
        let place = self.place();
        let forms = [("le16:", 2), ("le32:", 4), ("le64:", 8), ("be16:", 2), ("be32:", 4), ("be64:", 8)];
        let Some((form, len)) = forms.into_iter().find(|(form, _)| self.eat(form)) else {
            return Err(Fault::at(
                place,
                "not an expression; words are le16:, le32:, le64:, be16:, be32:, be64: and base64:",
            ));
        };
        let value = self.number("a word")?;
        if len < 8 && value >> (len * 8) != 0 {
            return Err(Fault::at(place, format!("{value}: too large for a word of {} bits", len * 8)));
        }
        let bytes = match form.as_bytes()[0] {
            b'l' => value.to_le_bytes()[..len].to_vec(),
            _ => value.to_be_bytes()[8 - len..].to_vec(),
        };
        Ok(Expr::text(bytes))
    }

    /// `base64:BASE64`.
    fn base64(&mut self) -> Parsed<Expr> {
        let place = self.place();
        self.eat("base64:");
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let len = self.rest().iter().position(|b| !part(b)).unwrap_or(self.rest().len());
        let decoded = BASE64_STANDARD.decode(&self.rest()[..len]);
        self.at += len;
        decoded.map(Expr::text).map_err(|e| Fault::at(place, e.to_string()))
    }

    /// `* N`.
    fn repeat(&mut self, item: Tree) -> Parsed<Tree> {
        let place = self.place();
        self.refuse_move(&item, "*N")?;
        self.at += 1;
        let count = self.amount("N after *")?;
        match item.expr.repeat(count, place) {
            Some(expr) => Ok(Tree { expr, height: item.height + 1 }),
            None => Err(Fault::at(place, "this is larger than a disk can be")),
        }
    }

    /// `[N:M]`.
    fn slice(&mut self, item: Tree) -> Parsed<Tree> {
        let place = self.place();
        self.refuse_move(&item, "[N:M]")?;
        self.at += 1;
        self.skip_blanks();
        let from = if self.peek() == Some(b':') { 0 } else { self.amount("N in [N:M]")? };
        self.skip_blanks();
        if !self.eat(":") {
            return self.fault("a slice is [N:M], [N:], [:M] or [:]");
        }
        self.skip_blanks();
        // -1 is how the optimised tree writes "to the end".
        let to = match self.peek() {
            Some(b']') => None,
            _ if self.eat("-1") => None,
            _ => Some(self.amount("M in [N:M]")?),
        };
        self.skip_blanks();
        if !self.eat("]") {
            return self.fault("a slice ends with ]");
        }
        match item.expr.slice(from, to, place) {
            Some(expr) => Ok(Tree { expr, height: item.height + 1 }),
            None => Err(Fault::at(place, NOT_A_PART)),
        }
    }

    fn refuse_move(&self, item: &Tree, operator: &str) -> Parsed<()> {
        match item.expr {
            Expr::Move(..) => self.fault(format!("{operator} cannot be applied to an offset")),
            _ => Ok(()),
        }
    }
}

/// What a slice is told that goes beyond its expression.
pub(super) const NOT_A_PART: &str = "this slice is not a part of the expression before it";

fn too_deep(place: Place) -> Fault {
    Fault::at(place, format!("expressions are nested more than {MAX_DEPTH} deep"))
}
