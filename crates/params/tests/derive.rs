//! The derives, as a component's author uses them.

use params::{Args, Choice, Delay, Params, Placed, Secret, Size};
use std::path::PathBuf;

/// How to answer a zero request.
#[derive(Choice, Debug, Clone, Copy, PartialEq)]
enum ZeroMode {
    None,
    Emulate,
    #[choice(name = "notrim", alias = "no-trim")]
    NoTrim,
}

/// Serve a local file
/// or block device.
///
/// The details follow.
#[derive(Params, Debug)]
struct File {
    /// The file to serve.
    #[param(magic)]
    file: PathBuf,
    /// Serve only this many bytes.
    truncate_to: Option<Size>,
    /// Read-ahead granularity.
    #[param(default = "64K", alias = "block")]
    block_size: Size,
    /// More files to append.
    append: Vec<String>,
    #[param(default = "none")]
    zeromode: ZeroMode,
    /// A password.
    password: Option<Secret>,
    #[param(flatten)]
    common: Common,
}

/// Shared by several components.
#[derive(Params, Debug)]
struct Common {
    /// How long to wait.
    #[param(default = "1", name = "rdelay")]
    read_delay: Delay,
    r#type: Option<Placed<u32>>,
}

/// Nothing to say.
#[derive(Params)]
struct Nothing;

#[derive(Params)]
struct Script {
    #[param(rest)]
    rest: Vec<(String, String)>,
    #[param(magic)]
    script: Option<String>,
}

fn parse(pairs: &[(&str, &str)]) -> Result<File, String> {
    let mut args = Args::new(pairs.iter().copied());
    let file = File::parse(&mut args).map_err(|error| error.to_string())?;
    args.finish(&[("file", File::PARAMS)]).map_err(|error| error.to_string())?;
    Ok(file)
}

#[test]
fn a_component_takes_what_it_declares_and_leaves_the_rest() {
    let mut args =
        Args::new([("file", "/d"), ("other", "1"), ("append", "a"), ("block", "1M"), ("append", "b")]);
    let file = File::parse(&mut args).unwrap();
    assert_eq!(file.file, PathBuf::from("/d"));
    assert_eq!(file.block_size.bytes(), 1 << 20);
    assert_eq!(file.append, ["a", "b"]);
    assert_eq!((file.truncate_to, file.zeromode), (None, ZeroMode::None));
    assert_eq!(file.common.read_delay.duration().as_secs(), 1);
    assert_eq!(args.take_rest(), [("other".to_owned(), "1".to_owned())]);
}

#[test]
fn the_table_says_what_the_struct_says() {
    assert_eq!(File::SUMMARY, "Serve a local file or block device.");
    assert_eq!(File::DETAILS, "The details follow.");
    let keys: Vec<_> = File::PARAMS.iter().map(|param| param.key).collect();
    let all = ["file", "truncate-to", "block-size", "append", "zeromode", "password", "rdelay", "type"];
    assert_eq!(keys, all);
    let required: Vec<_> =
        File::PARAMS.iter().filter(|param| param.required).map(|param| param.key).collect();
    assert_eq!(required, ["file"]);
    assert!(File::PARAMS[3].repeatable && File::PARAMS[0].magic);
    assert_eq!(File::PARAMS[2].default, Some("64K"));
    assert!(Nothing::PARAMS.is_empty());
    assert_eq!(Nothing::SUMMARY, "Nothing to say.");
    Nothing::parse(&mut Args::default()).unwrap();
}

#[test]
fn the_last_value_counts_but_all_are_checked() {
    let file = parse(&[("file", "/a"), ("file", "/b"), ("type", "7")]).unwrap();
    assert_eq!(file.file, PathBuf::from("/b"));
    assert_eq!(file.common.r#type, Some(Placed { value: 7, place: 3 }));
    let error = parse(&[("block", "9Q"), ("block-size", "1K"), ("file", "/b")]).unwrap_err();
    assert_eq!(error, "block=9Q: not a size such as 512, 64K or 1M");
}

#[test]
fn errors_read_as_sentences() {
    assert_eq!(parse(&[]).unwrap_err(), "file is required: you must supply the file= parameter");
    let given = |key, value| parse(&[("file", "/a"), (key, value)]).unwrap_err();
    assert_eq!(given("zeromode", "x"), "zeromode=x: not one of none, emulate or notrim");
    assert_eq!(given("blok-size", "1"), "unknown parameter 'blok-size': did you mean block-size= of file?");
    assert_eq!(given("quux", "1"), "unknown parameter 'quux'");
    assert_eq!(parse(&[("file", "/a"), ("zeromode", "no-trim")]).unwrap().zeromode, ZeroMode::NoTrim);
    assert_eq!(ZeroMode::NoTrim.to_string(), "notrim");
}

#[test]
fn secrets_show_nowhere() {
    let file = parse(&[("file", "/a"), ("password", "hunter2")]).unwrap();
    assert!(!format!("{file:?}").contains("hunter2"));
    assert_eq!(file.password.unwrap().reveal(), "hunter2");
    assert!(!parse(&[("file", "/a"), ("password", "-hunter2")]).unwrap_err().contains("hunter2"));
}

#[test]
fn a_script_takes_the_rest() {
    let mut args = Args::from_cli(&["x.sh", "b=1", "a=2"], Args::magic_key(Script::PARAMS)).unwrap();
    let script = Script::parse(&mut args).unwrap();
    assert_eq!(script.script.as_deref(), Some("x.sh"));
    assert_eq!(script.rest.len(), 2);
    assert!(args.is_empty());
}
