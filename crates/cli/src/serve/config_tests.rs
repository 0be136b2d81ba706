//! Files as people write them, and what is wrong with others.

use super::*;
use disk::{Backend, Client};

const GOOD: &str = r#"
default = "root"

[export.root]
plugin = "memory"
params = { size = "1M" }
filters = [{ filter = "offset", offset = 512 }]
description = "the root disk"
read-only = true

[export.scratch]
plugin = "memory"
params = ["2M", "allocator=sparse"]
filters = ["cow"]

[export.secret]
plugin = "memory"
params.size = 1048576
hidden = true
"#;

fn wrong(text: &str) -> String {
    format!("{:#}", Config::parse(text).unwrap_err())
}

fn plain(_: &'static str, _: &'static str, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    backend
}

#[test]
fn a_file_says_what_there_is() {
    let config = Config::parse(GOOD).unwrap();
    let names: Vec<&str> = config.exports().map(|(name, _)| name).collect();
    assert_eq!(names, ["root", "scratch", "secret"]);
    assert_eq!(config.default_export().as_deref(), Some("root"));
    let scratch = &config.export["scratch"];
    assert_eq!(scratch.arguments(), ["2M", "allocator=sparse"]);
    assert_eq!(config.export["secret"].arguments(), ["size=1048576"]);
    let names =
        |export: &Export| export.stack().unwrap().components().map(|about| about.name).collect::<Vec<_>>();
    assert_eq!(names(&config.export["root"]), ["offset", "memory"]);
}

#[test]
fn a_single_export_is_the_default_one() {
    assert_eq!(Config::parse("[export.x]\nplugin='null'").unwrap().default_export().as_deref(), Some("x"));
    let two = Config::parse("[export.x]\nplugin='null'\n[export.y]\nplugin='null'").unwrap();
    assert_eq!(two.default_export(), None);
}

#[test]
fn mistakes_are_told_with_their_line() {
    assert!(wrong("").starts_with("no export is described"));
    assert!(wrong("[export.x]\nplugin = 'null'\ndefualt = 1").starts_with("line 3: unknown field `defualt`"));
    let misplaced = wrong("[export.x]\nplugin = 'memory'\nsize = '1M'");
    assert!(misplaced.ends_with("parameters of the plugin stand in params = { KEY = VALUE }"), "{misplaced}");
    assert!(wrong("[export.x]\nparams = []").contains("missing field `plugin`"));
    assert!(wrong("[export.x\n").starts_with("line 1: "));
    assert_eq!(wrong("default='y'\n[export.x]\nplugin='null'"), "default = \"y\": there is no such export");
}

#[test]
fn reading_again_keeps_what_has_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("exports.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let text = |size: &str| {
        format!(
            "[export.a]\nplugin='memory'\nparams.size='1M'\n[export.b]\nplugin='memory'\nparams.size='{size}'"
        )
    };
    write(&text("1M"));
    let mut exports =
        Exports { config: Config::read(&file).unwrap(), members: BTreeMap::new(), file: file.clone() };
    exports.members = exports.started(&exports.config, &plain).unwrap();
    let before = exports.members.clone();

    write(&text("2M"));
    let told = exports.reload(&plain, |_| Ok(())).unwrap();
    assert_eq!(told, "2 exports, 1 of them as before");
    assert!(Arc::ptr_eq(&before["a"], &exports.members["a"]));
    let b = exports.members["b"].backend().open(&Client::default()).wait().unwrap();
    assert_eq!(b.facts().size, 2 << 20);

    write(&text("9Q"));
    let error = format!("{:#}", exports.reload(&plain, |_| panic!("nothing changes")).unwrap_err());
    assert!(error.contains("exports.toml: export \"b\": "), "{error}");
    assert!(error.ends_with("size=9Q: not a size such as 512, 64K or 1M"), "{error}");
    assert_eq!(exports.table().entries.len(), 2);
}
