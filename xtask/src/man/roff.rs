//! Manual pages as man(1) reads them.

use super::markdown::Block;

/// A page of section 1.
pub(super) fn page(name: &str, blocks: &[Block]) -> String {
    let mut out =
        format!(".TH \"{}\" 1 \"\" \"diskpipe {}\" \"\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let mut title = false;
    for block in blocks {
        // The index of manual pages goes by `page name - what it is`.
        if let (true, Block::Paragraph(text)) = (title, block) {
            let what = text.split_once(" - ").map_or(text.as_str(), |(_, what)| what);
            out += &format!("{name} \\- {}\n", inline(what));
        } else {
            put(&mut out, block);
        }
        title = matches!(block, Block::Heading(1, text) if text == "NAME");
    }
    out
}

fn put(out: &mut String, block: &Block) {
    match block {
        Block::Heading(1, text) => *out += &format!(".SH \"{}\"\n", inline(text)),
        Block::Heading(_, text) => *out += &format!(".SS \"{}\"\n", inline(text)),
        Block::Paragraph(text) => *out += &format!(".PP\n{}\n", line(&inline(text))),
        Block::Code(lines) => {
            out.push_str(".PP\n.RS 4\n.nf\n");
            lines.iter().for_each(|text| *out += &format!("{}\n", line(&escape(text))));
            out.push_str(".fi\n.RE\n");
        }
        Block::List(items) => {
            for item in items {
                out.push_str(".IP \\(bu 2\n");
                within(out, item);
            }
        }
        Block::Definition(terms, meaning) => {
            for (i, term) in terms.iter().enumerate() {
                out.push_str(if i == 0 { ".TP\n" } else { ".TQ\n" });
                *out += &format!("{}\n", line(&inline(term)));
            }
            within(out, meaning);
        }
    }
}

/// The parts of an item: the first paragraph belongs to its line, the others are indented like it.
fn within(out: &mut String, blocks: &[Block]) {
    let mut rest = blocks;
    if let [Block::Paragraph(text), others @ ..] = blocks {
        *out += &format!("{}\n", line(&inline(text)));
        rest = others;
    }
    if !rest.is_empty() {
        out.push_str(".RS\n");
        rest.iter().for_each(|block| put(out, block));
        out.push_str(".RE\n");
    }
}

/// A line that begins with a dot or a quote would be a command.
fn line(text: &str) -> String {
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text.to_owned() }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            // Left alone, these become typographic signs that nobody can paste into a shell.
            '-' => out.push_str("\\-"),
            '`' => out.push_str("\\(ga"),
            '\'' => out.push_str("\\(aq"),
            '"' => out.push_str("\\(dq"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c => out.push(c),
        }
    }
    out
}

/// Text with `code`, **strong** and *emphasised* parts, and [links](to somewhere).
fn inline(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['`', '*', '[']) {
        out.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let (open, close, font) = match rest.as_bytes() {
            [b'`', ..] => ("`", "`", "B"),
            [b'*', b'*', ..] => ("**", "**", "B"),
            [b'*', ..] => ("*", "*", "I"),
            _ => ("[", "](", ""),
        };
        let inner = &rest[open.len()..];
        // A mark without its partner is itself: `a * b`.
        let Some(end) = inner.find(close).filter(|end| *end > 0 && !inner.starts_with(' ')) else {
            out.push_str(&escape(open));
            rest = inner;
            continue;
        };
        if font.is_empty() {
            out.push_str(&escape(&inner[..end]));
            let target = &inner[end + close.len()..];
            rest = target.find(')').map_or("", |end| &target[end + 1..]);
        } else {
            out += &format!("\\f{font}{}\\fR", escape(&inner[..end]));
            rest = &inner[end + close.len()..];
        }
    }
    out.push_str(&escape(rest));
    out
}

#[cfg(test)]
mod tests {
    use super::super::markdown::parse;
    use super::*;

    #[test]
    fn a_page_has_its_own_name_and_keeps_code_as_it_is() {
        let text =
            "# NAME\n\nmemory - a disk\n\n# X\n\n.dot and `it's=-1`, *so* [this](that) 2 * 3\n\n    .a\\b\n";
        let page = page("diskpipe-memory-plugin", &parse(text));
        let expected = "\
.SH \"NAME\"
diskpipe-memory-plugin \\- a disk
.SH \"X\"
.PP
\\&.dot and \\fBit\\(aqs=\\-1\\fR, \\fIso\\fR this 2 * 3
.PP
.RS 4
.nf
\\&.a\\eb
.fi
.RE
";
        assert_eq!(page.split_once('\n').map(|(_, body)| body), Some(expected));
    }

    #[test]
    fn definitions_have_all_their_terms() {
        let mut out = String::new();
        parse("`a=1`\n`b=1`\n:   text\n\n    more\n").iter().for_each(|block| put(&mut out, block));
        assert_eq!(out, ".TP\n\\fBa=1\\fR\n.TQ\n\\fBb=1\\fR\ntext\n.RS\n.PP\nmore\n.RE\n");
    }
}
