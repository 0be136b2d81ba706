//! Readers of the parameter table: `--help`, the manual's PARAMETERS section, `--dump-plugin`, completion.

use crate::{Kind, Param};
use std::fmt::Write;

/// How wide help is written: terminals that are narrower wrap by themselves.
const WIDTH: usize = 79;
/// Where the explanations begin; longer parameters push theirs to the next line.
const COLUMN: usize = 26;

/// What `--help` says about one component: `title` (such as `plugin: memory`), its summary, and a line or
/// more per parameter. Ends with a newline.
pub fn help_text(title: &str, summary: &str, params: &[Param]) -> String {
    let mut out = format!("{title}: {summary}\n");
    for param in visible(params) {
        let left = format!("  {}", as_typed(param, &param.value_word()));
        let lines = wrap(&explanation(param), WIDTH - COLUMN);
        let mut left = left.as_str();
        // At least two blanks must part the columns.
        if left.chars().count() + 2 > COLUMN {
            let _ = writeln!(out, "{left}");
            left = "";
        }
        for line in lines {
            let _ = writeln!(out, "{}", format!("{left:<COLUMN$}{line}").trim_end());
            left = "";
        }
    }
    out
}

/// The rows of the manual's PARAMETERS section: a markdown definition list, one entry per parameter.
pub fn manual_rows(params: &[Param]) -> String {
    let mut out = String::new();
    for param in visible(params) {
        for word in alternatives(param) {
            let _ = writeln!(out, "`{}`", as_typed(param, &word));
            for alias in param.aliases {
                let _ = writeln!(out, "`{alias}={word}`");
            }
        }
        let mut mark = ":   ";
        let mut text = param.help.to_owned();
        for note in notes(param) {
            let _ = write!(text, "\n\n{note}");
        }
        for line in text.trim_start().lines() {
            let _ = writeln!(out, "{}", format!("{mark}{line}").trim_end());
            mark = "    ";
        }
        out.push('\n');
    }
    out
}

/// The words that a shell completes an argument to: `key=`, or `key=word` where the words are known.
pub fn completion_words(params: &[Param]) -> Vec<String> {
    let keys = visible(params).flat_map(|param| {
        let words = match param.kind {
            Kind::OneOf(words) => words,
            Kind::Bool => &["on", "off"],
            _ => &[""],
        };
        let keys = std::iter::once(&param.key).chain(param.aliases);
        keys.flat_map(move |key| words.iter().map(move |word| format!("{key}={word}")))
    });
    keys.collect()
}

/// The lines about parameters in `--dump-plugin`: the magic key, then one line per parameter.
pub fn dump_lines(params: &[Param]) -> String {
    let mut out = String::new();
    if let Some(magic) = crate::Args::magic_key(params) {
        let _ = writeln!(out, "magic_config_key={magic}");
    }
    if !params.is_empty() {
        out.push_str("has_config=1\nhas_config_complete=1\nhas_config_help=1\n");
    }
    for param in visible(params) {
        let _ = writeln!(out, "parameter_{}={}", param.key, param.value_word());
    }
    out
}

fn visible(params: &[Param]) -> impl Iterator<Item = &Param> {
    params.iter().filter(|param| !param.hidden)
}

/// `[file=]FILE` for the magic parameter, `key=VALUE` for others.
fn as_typed(param: &Param, word: &str) -> String {
    if param.magic { format!("[{}=]{word}", param.key) } else { format!("{}={word}", param.key) }
}

/// What may stand for the value in a manual, one line each: each word of a choice, or the kind's word.
fn alternatives(param: &Param) -> Vec<String> {
    param.value_word().split('|').map(str::to_owned).collect()
}

/// What the table knows beside the doc comment.
fn notes(param: &Param) -> Vec<String> {
    let mut notes = Vec::new();
    if param.required {
        notes.push("This parameter is required.".to_owned());
    }
    if param.repeatable {
        notes.push("It may be given several times.".to_owned());
    }
    if let Some(default) = param.default {
        notes.push(format!("The default is `{default}`."));
    }
    notes
}

/// The first paragraph of the help on one line, with what the table knows.
fn explanation(param: &Param) -> String {
    let first = param.help.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let mut text = if param.required { format!("(required) {first}") } else { first };
    if let Some(default) = param.default {
        let _ = write!(text, " (default {default})");
    }
    if param.repeatable {
        text.push_str(" (repeatable)");
    }
    if !param.aliases.is_empty() {
        let _ = write!(text, " (also {}=)", param.aliases.join("=, "));
    }
    text
}

/// At least one line, none wider than `width` unless a single word is.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Choice, Params, Size};

    /// A disk in memory.
    #[derive(Params)]
    #[expect(dead_code, reason = "only the table matters")]
    struct Memory {
        /// The size
        /// of the disk.
        ///
        /// More about the size.
        #[param(magic)]
        size: Size,
        /// Where the bytes live, which is a matter of taste and of the weather and takes more than a line.
        #[param(default = "sparse", alias = "alloc")]
        allocator: Allocator,
        /// Zero at start.
        clean_the_whole_disk: Option<bool>,
        /// Not for people.
        #[param(hidden)]
        internal: Option<String>,
        /// Names.
        #[param(placeholder = "NAME")]
        name: Vec<String>,
    }

    #[derive(Choice)]
    enum Allocator {
        Sparse,
        Malloc,
    }

    #[test]
    fn help_has_a_line_per_parameter() {
        assert_eq!(
            help_text("plugin: memory", Memory::SUMMARY, Memory::PARAMS),
            "\
plugin: memory: A disk in memory.
  [size=]SIZE             (required) The size of the disk.
  allocator=sparse|malloc
                          Where the bytes live, which is a matter of taste and
                          of the weather and takes more than a line. (default
                          sparse) (also alloc=)
  clean-the-whole-disk=on|off
                          Zero at start.
  name=NAME               Names. (repeatable)
"
        );
    }

    #[test]
    fn manual_rows_are_a_definition_list() {
        let rows = manual_rows(&Memory::PARAMS[..2]);
        assert_eq!(
            rows,
            "\
`[size=]SIZE`
:   The size
    of the disk.

    More about the size.

    This parameter is required.

`allocator=sparse`
`alloc=sparse`
`allocator=malloc`
`alloc=malloc`
:   Where the bytes live, which is a matter of taste and of the weather and takes more than a line.

    The default is `sparse`.

"
        );
    }

    #[test]
    fn completion_knows_the_words() {
        assert_eq!(
            completion_words(Memory::PARAMS),
            [
                "size=",
                "allocator=sparse",
                "allocator=malloc",
                "alloc=sparse",
                "alloc=malloc",
                "clean-the-whole-disk=on",
                "clean-the-whole-disk=off",
                "name="
            ]
        );
    }

    #[test]
    fn the_dump_names_the_magic_key_first() {
        assert!(dump_lines(Memory::PARAMS).starts_with("magic_config_key=size\nhas_config=1\n"));
        assert!(!dump_lines(Memory::PARAMS).contains("internal"));
        assert_eq!(dump_lines(&[]), "");
    }
}
