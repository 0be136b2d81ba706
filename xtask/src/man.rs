//! `cargo xtask man`: manual pages and shell completions, made of the manuals beside the code and of the declared
//! parameters and options.

mod markdown;
mod roff;

use crate::run;
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;
use disk::registry::About;
use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

/// Writes `target/man/man1/*.1` and `target/completions/*`.
pub(crate) fn make() -> Result<()> {
    let man = run::target_dir().join("man/man1");
    fs::create_dir_all(&man)?;
    let pages = pages();
    for (name, markdown) in &pages {
        let page = roff::page(name, &markdown::parse(markdown));
        fs::write(man.join(format!("{name}.1")), page)
            .with_context(|| format!("{name}.1 cannot be written"))?;
    }
    println!("{} manual pages in {}", pages.len(), man.display());

    let completions = run::target_dir().join("completions");
    fs::create_dir_all(&completions)?;
    let mut files = 0;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        for (name, mut command) in programs() {
            clap_complete::generate_to(shell, &mut command, name, &completions)?;
            files += 1;
        }
    }
    println!("{files} completion files in {}", completions.display());
    Ok(())
}

/// Every manual page's name and its Markdown, with the declared parameters and options in their places.
fn pages() -> Vec<(String, String)> {
    let plugins = plugins::PLUGINS.iter().map(|entry| (entry.about, "plugin"));
    let filters = filters::FILTERS.iter().map(|entry| (entry.about, "filter"));
    let component = |(about, kind): (About, &str)| {
        (format!("diskpipe-{}-{kind}", about.name), with_parameters(about.manual, about.params))
    };
    let mut pages: Vec<_> = plugins.chain(filters).map(component).collect();
    let serve = ("serve", cli::SERVE_MANUAL, cli::serve_command());
    let tools = tools::TOOLS.iter().map(|tool| (tool.name, tool.manual, (tool.command)()));
    for (name, manual, command) in std::iter::once(serve).chain(tools) {
        pages.push((format!("diskpipe-{name}"), with_options(manual, &command)));
    }
    pages.extend(guides());
    pages
}

/// What is no program's or component's own page: `docs/guides/NAME.md`.
fn guides() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides");
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
    let mut guides: Vec<(String, String)> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"))
        .filter_map(|file| {
            let name = file.file_stem()?.to_str()?;
            // Marks are for those who make the texts.
            let text = fs::read_to_string(&file).ok()?;
            let lines = text.lines().filter(|line| !line.starts_with("<!--"));
            Some((format!("diskpipe-{name}"), lines.map(|line| format!("{line}\n")).collect()))
        })
        .collect();
    guides.sort();
    guides
}

fn with_parameters(manual: &str, params: &[params::Param]) -> String {
    manual.replace("<!-- parameters -->", &params::help::manual_rows(params))
}

fn with_options(manual: &str, command: &clap::Command) -> String {
    manual.replace("<!-- options -->", &option_rows(command))
}

/// The options as a definition list.
fn option_rows(command: &clap::Command) -> String {
    let mut rows = String::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        let values: Vec<String> =
            arg.get_value_names().into_iter().flatten().map(|name| format!(" {name}")).collect();
        let values = if arg.get_action().takes_values() { values.concat() } else { String::new() };
        let long = arg.get_long_and_visible_aliases().into_iter().flatten().map(|long| format!("--{long}"));
        let short =
            arg.get_short_and_visible_aliases().into_iter().flatten().map(|short| format!("-{short}"));
        let spelled: Vec<String> = short.chain(long).map(|option| format!("`{option}{values}`")).collect();
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(rows, "{}", spelled.join(", "));
        for (i, line) in help.lines().enumerate() {
            let mark = if i == 0 { ":   " } else { "    " };
            let _ = writeln!(rows, "{}", format!("{mark}{line}").trim_end());
        }
        rows.push('\n');
    }
    rows
}

/// The commands to complete, under all of their names.
fn programs() -> Vec<(&'static str, clap::Command)> {
    let mut diskpipe = clap::Command::new("diskpipe").subcommand(serve("serve")).subcommand(serve("explain"));
    let mut all = vec![("nbdkit", serve("nbdkit"))];
    for tool in &tools::TOOLS {
        diskpipe = diskpipe.subcommand((tool.command)().name(tool.name));
        if let Some(alias) = tool.alias {
            all.push((alias, (tool.command)().name(alias)));
        }
    }
    let directory = clap::Arg::new("directory").value_hint(clap::ValueHint::DirPath).required(true);
    diskpipe = diskpipe.subcommand(clap::Command::new("install-names").arg(directory));
    all.push(("diskpipe", diskpipe));
    all
}

/// The server's command with the words that it knows: plugins, filters, and the parameters of all of them.
fn serve(name: &'static str) -> clap::Command {
    let plugins = plugins::PLUGINS.iter().map(|entry| &entry.about);
    let filters = filters::FILTERS.iter().map(|entry| &entry.about);
    let filter_names: Vec<&str> = filters.clone().map(|about| about.name).collect();
    let mut words: Vec<String> = plugins.clone().map(|about| about.name.to_owned()).collect();
    let parameters = plugins.chain(filters).flat_map(|about| params::help::completion_words(about.params));
    words.extend(parameters.collect::<BTreeSet<_>>());
    cli::serve_command()
        .name(name)
        .mut_arg("filter", |arg| arg.value_parser(PossibleValuesParser::new(filter_names)))
        .mut_arg("words", |arg| arg.value_parser(PossibleValuesParser::new(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_made_and_no_place_is_left_empty() {
        for (name, markdown) in pages() {
            assert!(
                !markdown.contains("<!--"),
                "{name}: {}",
                markdown.lines().find(|l| l.contains("<!--")).unwrap()
            );
            let page = roff::page(&name, &markdown::parse(&markdown));
            assert!(page.contains(".SH \"NAME\"") && page.contains(".SH \"EXAMPLES\""), "{name}");
        }
    }

    #[test]
    fn completions_know_plugins_filters_and_parameters() {
        for (name, mut command) in programs() {
            let mut script = vec![];
            clap_complete::generate(Shell::Bash, &mut command, name, &mut script);
            let script = String::from_utf8(script).unwrap();
            if ["diskpipe", "nbdkit"].contains(&name) {
                assert!(
                    ["sparse-random", "noextents", "zeromode=notrim"]
                        .iter()
                        .all(|word| script.contains(word))
                );
            }
        }
    }

    #[test]
    fn options_are_a_definition_list() {
        let command = clap::Command::new("x")
            .arg(clap::arg!(-p --port <PORT> "Where to listen.").long_help("Where to listen.\n\nOr not."))
            .arg(clap::arg!(-v --verbose "Say more."));
        let expected = "`-p PORT`, `--port PORT`\n:   Where to listen.\n\n    Or not.\n\n`-v`, `--verbose`\n:   Say more.\n\n";
        assert_eq!(option_rows(&command), expected);
    }
}
