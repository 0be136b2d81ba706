//! The program under the names of those that it stands in for: scripts that call them find what they expect.

use e2e::{Run, directory, needs};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names in a directory of the test's own.
struct Names(tempfile::TempDir);

impl Names {
    fn installed() -> Names {
        let dir = directory();
        let said = Run::diskpipe().arg("install-names").arg(dir.path()).text();
        assert_eq!(said.lines().count(), fs::read_dir(dir.path()).unwrap().count(), "{said}");
        Names(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, name: &str, arguments: &str) -> Run {
        Run::new(self.path(name)).words(arguments)
    }

    /// A script that finds these names first.
    fn script(&self, script: &str) -> Run {
        let mut path = self.0.path().as_os_str().to_owned();
        path.push(":");
        path.push(e2e::path());
        Run::sh(script).env("PATH", path)
    }
}

fn keys(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect()
}

fn value<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}="))
}

#[test]
fn the_names_are_links_that_can_be_installed_again() {
    let names = Names::installed();
    for name in ["nbdkit", "nbdcopy", "nbddump", "nbdfuse", "nbdinfo"] {
        assert_eq!(fs::canonicalize(names.path(name)).unwrap(), fs::canonicalize(e2e::diskpipe()).unwrap());
    }
    Run::diskpipe().arg("install-names").arg(names.0.path()).end().good();
    fs::remove_file(names.path("nbdinfo")).unwrap();
    fs::write(names.path("nbdinfo"), "somebody else's").unwrap();
    let refused = Run::diskpipe().arg("install-names").arg(names.0.path()).end().code(1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    Run::diskpipe().arg("install-names").arg("--force").arg(names.0.path()).end().good();
    Run::diskpipe().words("install-names /no/such/directory").end().code(1);
}

#[test]
fn versions_read_like_the_peers() {
    needs!("nbdkit", "nbdcopy", "nbddump", "nbdfuse", "nbdinfo");
    let names = Names::installed();
    let shape = |text: &str| -> Vec<Vec<String>> {
        let word = |word: &str| match word.starts_with(|c: char| c.is_ascii_digit()) {
            true => "1.2.3".to_owned(),
            false => word.to_owned(),
        };
        text.lines().map(|line| line.split(' ').map(word).collect()).collect()
    };
    for (name, arguments) in [
        ("nbdkit", "--version"),
        ("nbdkit", "-V"),
        ("nbdkit", "--version memory"),
        ("nbdkit", "--version --filter=log --filter=offset memory"),
        ("nbdcopy", "--version"),
        ("nbdcopy", "-V"),
        ("nbddump", "--version"),
        ("nbdfuse", "--version"),
        ("nbdinfo", "--version"),
    ] {
        let (ours, theirs) = (names.run(name, arguments).text(), Run::new(name).words(arguments).text());
        assert_eq!(shape(&ours), shape(&theirs), "{name} {arguments}");
        assert!(ours.starts_with(&format!("{name} 1.")), "{ours}");
    }
    assert!(Run::diskpipe().arg("--version").text().starts_with("diskpipe "));
}

#[test]
fn every_option_of_the_peers_is_there() {
    needs!("nbdkit", "nbdcopy", "nbddump", "nbdfuse", "nbdinfo");
    let names = Names::installed();
    for name in ["nbdkit", "nbdcopy", "nbddump", "nbdfuse", "nbdinfo"] {
        for list in ["--long-options", "--short-options"] {
            let (ours, theirs) = (names.run(name, list).text(), Run::new(name).arg(list).text());
            let ours: BTreeSet<&str> = ours.lines().collect();
            let missing: Vec<&str> = theirs.lines().filter(|option| !ours.contains(option)).collect();
            assert_eq!(missing, [""; 0], "{name} {list}");
        }
    }
}

#[test]
fn help_names_the_program_that_was_called() {
    let names = Names::installed();
    for name in ["nbdkit", "nbdcopy", "nbddump", "nbdfuse", "nbdinfo"] {
        let help = names.run(name, "--help").text();
        assert!(help.contains(&format!("Usage: {name} [")), "{help}");
        assert!(!help.contains("diskpipe "), "{help}");
    }
    for plugin in ["memory", "file", "nbd", "sparse-random", "pattern"] {
        assert!(names.run("nbdkit", &format!("{plugin} --help")).text().contains(plugin));
    }
    let help = names.run("nbdkit", "--filter=delay memory --help").text();
    assert!(help.contains("rdelay") && help.contains("size"), "{help}");
}

#[test]
fn a_plugin_or_filter_may_be_named_by_its_place() {
    let script = "dir() { diskpipe serve --dump-config | sed -n \"s/^$1=//p\"; }
        diskpipe serve --filter=$(dir filterdir)/nbdkit-offset-filter.so $(dir plugindir)/nbdkit-memory-plugin.so \
            1M offset=512 --run 'diskpipe info --size \"$uri\"'";
    assert_eq!(Run::sh(script).text(), "1048064\n");
}

#[test]
fn the_configuration_has_what_scripts_look_for() {
    let names = Names::installed();
    let config = names.run("nbdkit", "--dump-config").text();
    assert_eq!(value(&config, "host_os"), "linux-gnu");
    assert_eq!(value(&config, "version_major"), "1");
    value(&config, "version_minor").parse::<u32>().unwrap();
    assert!(Path::new(value(&config, "bindir")).is_dir());
    assert_eq!(Path::new(value(&config, "binary")), fs::canonicalize(e2e::diskpipe()).unwrap());
    // By whatever way it was called.
    assert_eq!(config, Run::diskpipe().words("serve --dump-config").text());
}

#[test]
fn a_plugin_tells_what_the_peers_tells() {
    needs!("nbdkit");
    let names = Names::installed();
    for plugin in ["memory", "file", "nbd", "pattern", "sparse-random", "random", "null", "zero", "full"] {
        let arguments = format!("{plugin} --dump-plugin");
        let (ours, theirs) =
            (names.run("nbdkit", &arguments).text(), Run::new("nbdkit").words(&arguments).text());
        for key in ["name", "api_version", "max_thread_model", "thread_model"] {
            assert_eq!(value(&ours, key), value(&theirs, key), "{plugin}: {key}\n{ours}");
        }
        assert_eq!(
            keys(&ours).contains("magic_config_key"),
            keys(&theirs).contains("magic_config_key"),
            "{plugin}"
        );
        if keys(&theirs).contains("magic_config_key") {
            assert_eq!(value(&ours, "magic_config_key"), value(&theirs, "magic_config_key"), "{plugin}");
        }
        assert!(ours.lines().any(|line| line == "has_thread_model=1"), "{ours}");
    }
}

#[test]
fn an_unknown_name_fails_and_says_so() {
    let names = Names::installed();
    for arguments in [
        "nosuchplugin",
        "--filter=nosuchfilter memory 1M",
        "--nosuchoption memory 1M",
        "",
        "memory 1M nosuchkey=1",
    ] {
        let ended = names.run("nbdkit", arguments).end().code(1);
        assert_eq!(ended.text(), "");
        assert!(ended.stderr.starts_with("nbdkit: error: "), "{arguments}: {}", ended.stderr);
    }
    for name in ["nbdcopy", "nbddiscard", "nbddump", "nbdinfo", "nbdzero"] {
        for arguments in ["", "--nosuchoption", "nbd+unix:///?socket=/no/such/socket /dev/null"] {
            let ended = names.run(name, arguments).end().code(1);
            assert_eq!(ended.text(), "", "{name} {arguments}");
            assert!(!ended.stderr.is_empty(), "{name} {arguments}");
        }
    }
}

#[test]
fn a_script_for_the_peers_runs_unchanged() {
    let names = Names::installed();
    let script = r#"set -e
        nbdkit -U - --filter=stats memory 10M statsfile=/dev/null --run 'nbdinfo --size "$uri"'
        nbdkit -fU - sparse-random 100M seed=1 --run 'nbdcopy "$uri" "$uri" && nbdcopy -p "$uri" null:' 2> progress
        grep -q 100% progress
        nbdkit --exit-with-parent -f -U sock -P pid memory 1M &
        while ! test -s pid; do sleep 0.01; done
        nbdcopy -- [ nbdkit pattern 1M ] nbd+unix:///?socket=sock
        nbdinfo --map 'nbd+unix://?socket=sock'
        nbdcopy nbd+unix:///?socket=sock - | tail -c 8 | od -An -tx1
        kill $(cat pid)
        wait"#;
    let dir = directory();
    let said = names.script(script).in_directory(dir.path()).text();
    let lines: Vec<String> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["10485760", "0 1048576 0 data", "00 00 00 00 00 0f ff f8"]);
}

#[test]
fn the_server_itself_finds_our_names_and_not_the_peers() {
    let names = Names::installed();
    let said = names.run("nbdkit", "memory 1M").args(["--run", "command -v diskpipe"]).text();
    assert_eq!(fs::canonicalize(said.trim_end()).unwrap(), fs::canonicalize(e2e::diskpipe()).unwrap());
}
