//! What every manual page must have, and whether it speaks of the parameters that exist.

use disk::registry::About;

/// What is wrong with a component's manual, as sentences.
pub(crate) fn problems(about: &About) -> Vec<String> {
    let mut problems = vec![];
    for wanted in ["NAME", "SYNOPSIS", "EXAMPLES"] {
        match section(about.manual, wanted) {
            None => problems.push(format!("there is no section {wanted}")),
            Some(text) if text.trim().is_empty() => problems.push(format!("the section {wanted} is empty")),
            Some(_) => {}
        }
    }
    if !section(about.manual, "NAME").unwrap_or_default().contains(about.name) {
        problems.push(format!("the section NAME does not name {}", about.name));
    }
    if !section(about.manual, "EXAMPLES").unwrap_or_default().contains("```sh") {
        problems.push("the section EXAMPLES has no example (```sh)".to_owned());
    }
    let text = section(about.manual, "PARAMETERS").unwrap_or_default();
    let declared = about.params.iter().any(|param| !param.hidden);
    // The mark is replaced by what the component declares; who writes the section by hand must match that.
    if !(declared && text.contains("<!-- parameters -->")) {
        let documented = documented(&text);
        for param in about.params.iter().filter(|param| !param.hidden) {
            if !documented.iter().any(|key| param.is_called(key)) {
                problems.push(format!("the parameter {} is not documented", param.key));
            }
        }
        for key in documented {
            if !about.params.iter().any(|param| param.is_called(&key)) {
                problems.push(format!("{key} is documented and is no parameter"));
            }
        }
    }
    problems
}

/// Whether its text, not merely an example, speaks of memory.
pub(crate) fn says_memory(about: &About) -> bool {
    let text = section(about.manual, "DESCRIPTION").unwrap_or_default();
    text.lines().any(|line| !line.starts_with("    ") && line.to_lowercase().contains("memory"))
}

/// The text under the heading of this name, up to the next one of the same or a higher level.
fn section(manual: &str, name: &str) -> Option<String> {
    let mut lines = manual.lines().skip_while(|line| heading(line).is_none_or(|(_, text)| text != name));
    let (level, _) = heading(lines.next()?)?;
    let mut fenced = false;
    let body = lines.take_while(|line| {
        fenced ^= line.starts_with("```");
        fenced || heading(line).is_none_or(|(other, _)| other > level)
    });
    Some(body.collect::<Vec<_>>().join("\n"))
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|b| *b == b'#').count();
    (level > 0).then(|| (level, line[level..].trim()))
}

/// The keys of entries such as `` `size=SIZE` `` or `` **`[file=]FILE`** `` at the beginning of a line.
fn documented(text: &str) -> Vec<String> {
    let entries = text.lines().filter_map(|line| {
        let line = line.trim_start_matches(['#', '*', '-', ' ']);
        let code = line.strip_prefix('`')?.split('`').next()?;
        let code = code.trim_start_matches('[');
        let key = code.split_once('=')?.0;
        key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).then(|| key.to_owned())
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_is_told_what_it_lacks() {
        let manual = "# NAME\n\nother - x\n\n# EXAMPLES\n\n# PARAMETERS\n\n`[size=]SIZE`\n:   x\n\n`old=X`\n";
        let about = About { name: "memory", summary: "", manual, params: &[] };
        let expected = [
            "there is no section SYNOPSIS",
            "the section EXAMPLES is empty",
            "the section NAME does not name memory",
            "the section EXAMPLES has no example (```sh)",
            "size is documented and is no parameter",
            "old is documented and is no parameter",
        ];
        assert_eq!(problems(&about), expected);
    }

    #[test]
    fn comments_in_examples_are_no_headings() {
        let manual = "## EXAMPLES\n```sh\n# a comment\nls\n```\n### more\nx\n## SEE ALSO\n";
        let text = section(manual, "EXAMPLES").unwrap();
        assert!(text.contains("ls") && text.contains('x') && !text.contains("SEE"));
    }
}
