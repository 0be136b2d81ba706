//! The part of Markdown that manuals are written in: headings, paragraphs, code, lists and definition lists.

/// A part of a manual.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Its level (1 is the highest) and text.
    Heading(usize, String),
    Paragraph(String),
    /// Lines as they stand.
    Code(Vec<String>),
    /// Each item's parts.
    List(Vec<Vec<Block>>),
    /// Terms, and the parts of what they mean.
    Definition(Vec<String>, Vec<Block>),
}

/// Reads a manual.
pub(super) fn parse(text: &str) -> Vec<Block> {
    blocks(&text.lines().collect::<Vec<_>>())
}

fn blocks(lines: &[&str]) -> Vec<Block> {
    let (mut blocks, mut at) = (vec![], 0);
    while at < lines.len() {
        let (block, used) = block(&lines[at..]);
        blocks.extend(block);
        at += used;
    }
    blocks
}

/// The first block and how many lines it took.
fn block(lines: &[&str]) -> (Option<Block>, usize) {
    let first = lines[0];
    if first.trim().is_empty() || first.starts_with("<!--") {
        return (None, 1);
    }
    if let Some(level) = heading_level(first) {
        return (Some(Block::Heading(level, first[level..].trim().to_owned())), 1);
    }
    if first.starts_with("```") {
        let body: Vec<String> = lines[1..]
            .iter()
            .take_while(|line| !line.starts_with("```"))
            .map(|line| (*line).to_owned())
            .collect();
        let used = (body.len() + 2).min(lines.len());
        return (Some(Block::Code(body)), used);
    }
    if let Some(code) = first.strip_prefix("    ") {
        let used = indented(lines, 4);
        let rest = lines[1..used].iter().map(|line| line.get(4..).unwrap_or_default().to_owned());
        return (Some(Block::Code(std::iter::once(code.to_owned()).chain(rest).collect())), used);
    }
    if is_item(first) {
        return list(lines);
    }
    let end = lines.iter().position(|line| ends_paragraph(line)).unwrap_or(lines.len()).max(1);
    if lines.get(end).is_some_and(|line| line.starts_with(":   ")) {
        let body = lines[end][4..].to_owned();
        let used = end + 1 + indented(&lines[end + 1..], 4);
        let rest = lines[end + 1..used].iter().map(|line| line.get(4..).unwrap_or_default());
        let inner: Vec<&str> = std::iter::once(body.as_str()).chain(rest).collect();
        let terms = lines[..end].iter().map(|line| line.trim().to_owned()).collect();
        return (Some(Block::Definition(terms, blocks(&inner))), used);
    }
    let text = lines[..end].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    (Some(Block::Paragraph(text)), end)
}

fn heading_level(line: &str) -> Option<usize> {
    let level = line.bytes().take_while(|b| *b == b'#').count();
    (level > 0 && line[level..].starts_with(' ')).then_some(level)
}

fn is_item(line: &str) -> bool {
    line.starts_with("- ") || line.starts_with("* ")
}

fn ends_paragraph(line: &str) -> bool {
    line.trim().is_empty()
        || line.starts_with(":   ")
        || line.starts_with("```")
        || heading_level(line).is_some()
        || is_item(line)
}

/// How many lines are indented by so much, blank ones between them included.
fn indented(lines: &[&str], by: usize) -> usize {
    let is_in = |line: &&str| line.len() > by && line.as_bytes()[..by].iter().all(|b| *b == b' ');
    let within = lines.iter().take_while(|line| line.trim().is_empty() || is_in(line)).count();
    lines[..within].iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1)
}

fn list(lines: &[&str]) -> (Option<Block>, usize) {
    let (mut items, mut at) = (vec![], 0);
    while at < lines.len() && is_item(lines[at]) {
        // An item goes on in indented lines, or lazily in plain ones.
        let lazy = lines[at + 1..].iter().take_while(|line| !ends_paragraph(line)).count();
        let used = 1 + lazy + indented(&lines[at + 1 + lazy..], 2);
        let rest = lines[at + 1..at + used].iter().map(|line| line.strip_prefix("  ").unwrap_or(line));
        let inner: Vec<&str> = std::iter::once(&lines[at][2..]).chain(rest).collect();
        items.push(blocks(&inner));
        at += used;
        let blank = lines[at..].iter().take_while(|line| line.trim().is_empty()).count();
        if lines.get(at + blank).is_some_and(|line| is_item(line)) {
            at += blank;
        }
    }
    (Some(Block::List(items)), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(text: &str) -> Block {
        Block::Paragraph(text.to_owned())
    }

    #[test]
    fn manuals_are_read_block_by_block() {
        let text = "\
# NAME

x - one
line
## Sub
    code
      more

    still
- a
  b
- c

```sh
# no heading
```
`t=1`
`t=2`
:   means

    this
after
";
        let expected = [
            Block::Heading(1, "NAME".into()),
            paragraph("x - one line"),
            Block::Heading(2, "Sub".into()),
            Block::Code(vec!["code".into(), "  more".into(), String::new(), "still".into()]),
            Block::List(vec![vec![paragraph("a b")], vec![paragraph("c")]]),
            Block::Code(vec!["# no heading".into()]),
            Block::Definition(
                vec!["`t=1`".into(), "`t=2`".into()],
                vec![paragraph("means"), paragraph("this")],
            ),
            paragraph("after"),
        ];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_fence_that_never_ends_is_code_to_the_end() {
        assert_eq!(parse("```\nx"), [Block::Code(vec!["x".into()])]);
        assert_eq!(parse("```"), [Block::Code(vec![])]);
    }
}
