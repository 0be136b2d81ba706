//! What `serve` prints instead of serving: help, versions, lists of options, facts for scripts.

use super::options;
use super::stack::Stack;
use disk::registry::Described;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The version of nbdkit whose command line, parameters and behaviour these are; scripts compare it.
const NBDKIT_VERSION: (u32, u32, u32) = (1, 32, 5);

/// Our own version, or nbdkit's under that name.
pub(crate) fn version_number(program: &str) -> String {
    let (major, minor, patch) = NBDKIT_VERSION;
    match program {
        "nbdkit" => format!("{major}.{minor}.{patch}"),
        _ => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// `--version`: the program, the filters and the plugin, one line each.
pub(crate) fn version(program: &str, stack: &Stack) -> String {
    let number = version_number(program);
    let first = program.split(' ').next().unwrap_or(program);
    std::iter::once(first)
        .chain(stack.components().map(|about| about.name))
        .map(|name| format!("{name} {number}\n"))
        .collect()
}

/// `--help`: the options, then the parameters of the components that are named.
pub(crate) fn help(program: &str, stack: &Stack) -> String {
    let usage = format!("{program} [OPTION...] PLUGIN [[KEY=]VALUE...]");
    let mut text = options::command().override_usage(usage).render_help().to_string();
    let filters = stack.filters().map(|about| ("filter", about));
    for (kind, about) in filters.chain(stack.plugin().map(|plugin| ("plugin", plugin.about))) {
        text.push('\n');
        text += &params::help::help_text(&format!("{kind}: {}", about.name), about.summary, about.params);
    }
    if stack.components().next().is_none() {
        let names = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "\nPlugins: {}", names(&mut plugins::PLUGINS.iter().map(|p| p.about.name)));
        let _ = writeln!(text, "Filters: {}", names(&mut filters::FILTERS.iter().map(|f| f.about.name)));
        let _ = writeln!(text, "{program} PLUGIN --help tells a plugin's parameters.");
    }
    text
}

/// `--short-options` and `--long-options`: one option per line, for completion scripts.
pub(crate) fn option_list(long: bool) -> String {
    let command = options::command();
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let lines: Vec<String> = match long {
        false => shown.filter_map(|arg| arg.get_short()).map(|short| format!("-{short}\n")).collect(),
        true => shown
            .flat_map(|arg| arg.get_long().into_iter().chain(arg.get_visible_aliases().unwrap_or_default()))
            .map(|long| format!("--{long}\n"))
            .collect(),
    };
    lines.concat()
}

/// `--dump-config`: how the program was built, as nbdkit's users expect it.
pub(crate) fn config() -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    let bindir = binary.parent().unwrap_or(&binary);
    let (major, minor, patch) = NBDKIT_VERSION;
    let mut text = String::new();
    for (key, value) in [
        ("binary", binary.display().to_string()),
        ("bindir", bindir.display().to_string()),
        ("diskpipe_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("exit_with_parent", "yes".to_owned()),
        ("filterdir", directory_of("filter")),
        ("host_cpu", std::env::consts::ARCH.to_owned()),
        ("host_os", "linux-gnu".to_owned()),
        ("libdir", library_directory(bindir)),
        ("mandir", bindir.with_file_name("share").join("man").display().to_string()),
        ("name", "nbdkit".to_owned()),
        ("plugindir", directory_of("plugin")),
        ("root_tls_certificates_dir", "/etc/pki/nbdkit".to_owned()),
        ("sbindir", bindir.display().to_string()),
        ("selinux", "yes".to_owned()),
        ("sysconfdir", "/etc".to_owned()),
        ("tls", if net::tls::BUILT { "yes" } else { "no" }.to_owned()),
        ("version", format!("{major}.{minor}.{patch}")),
        ("version_major", major.to_string()),
        ("version_minor", minor.to_string()),
        (
            "zstd",
            if plugins::find("memory").is_some_and(|p| p.dump.contains(&("zstd", "yes"))) {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
        ),
    ] {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// `plugindir` or `filterdir`, where scripts look for a plugin or a filter.
pub(crate) fn directory_of(what: &str) -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    format!("{}/nbdkit/{what}s", library_directory(binary.parent().unwrap_or(&binary)))
}

/// Where this system keeps libraries, and with them what others built for nbdkit: beside the program, where it is installed
/// under a prefix of its own.
fn library_directory(bindir: &Path) -> String {
    let beside = bindir.with_file_name("lib");
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let usual = [beside.clone(), PathBuf::from(triplet), "/usr/lib64".into(), "/usr/lib".into()];
    let found = usual.into_iter().find(|lib| lib.join("nbdkit").is_dir());
    found.unwrap_or(beside).display().to_string()
}

/// `--dump-plugin`: facts about the plugin, `key=value`. The thread model is that of the whole stack.
pub(crate) fn plugin(program: &str, plugin: &disk::PluginEntry, described: &Described) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "path={}", std::env::current_exe().unwrap_or_default().display());
    let _ = writeln!(text, "name={}", plugin.about.name);
    let _ = writeln!(text, "version={}", version_number(program));
    let _ = writeln!(text, "api_version=2");
    let _ = writeln!(text, "max_thread_model={}", plugin.thread_model);
    let _ = writeln!(text, "thread_model={}", described.thread_model.min(plugin.thread_model));
    let _ = writeln!(text, "errno_is_preserved=1");
    text += &params::help::dump_lines(plugin.about.params);
    let _ = writeln!(text, "has_thread_model=1");
    for (key, value) in plugin.dump {
        let _ = writeln!(text, "{key}={value}");
    }
    text + &described.lines
}
