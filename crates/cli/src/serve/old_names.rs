//! Plugins of former times that have become filters: people still use their names, and are given the plugin file with
//! the filter over it.

use super::options::ServeOptions;

/// A plugin of old, and the filter in its place.
struct Old {
    /// Of both.
    name: &'static str,
    /// What the parameters are called now.
    keys: &'static [(&'static str, &'static str)],
}

const OLD: [Old; 3] = [
    Old { name: "ext2", keys: &[("disk", "file"), ("file", "ext2file")] },
    Old { name: "gzip", keys: &[] },
    Old { name: "tar", keys: &[("tar", "file"), ("file", "tar-entry")] },
];

/// The same with the names of today.
///
/// # Errors
/// A sentence with the new command line, where there is no such filter yet.
pub(crate) fn modern(mut options: ServeOptions) -> Result<ServeOptions, String> {
    let found = OLD.iter().find(|old| options.plugin.as_deref() == Some(old.name));
    let Some(Old { name, keys }) = found else { return Ok(options) };
    if plugins::find(name).is_some() {
        return Ok(options);
    }
    for argument in &mut options.arguments {
        if let Some((key, value)) = argument.split_once('=')
            && let Some((_, new)) = keys.iter().find(|(old, _)| *old == key)
        {
            *argument = format!("{new}={value}");
        }
    }
    if filters::find(name).is_none() {
        let arguments: String = options.arguments.iter().map(|argument| format!(" {argument}")).collect();
        return Err(format!(
            "the plugin {name} has become a filter, which is not built yet; with it the command is: \
             diskpipe serve --filter={name} file{arguments}"
        ));
    }
    options.plugin = Some("file".to_owned());
    // Next to the plugin, as if it were a part of it.
    options.filters.push((*name).to_owned());
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_plugins_become_filters_over_a_file() {
        for (line, name, arguments) in [
            (&["gzip", "d.raw.gz"][..], "gzip", &["d.raw.gz"][..]),
            (
                &["tar", "tar=rhel.ova", "file=rhel-disk1.vmdk"],
                "tar",
                &["file=rhel.ova", "tar-entry=rhel-disk1.vmdk"],
            ),
            (&["ext2", "disk=d.ext2", "file=/disk.img"], "ext2", &["file=d.ext2", "ext2file=/disk.img"]),
        ] {
            let given = [&["--filter=cow"], line].concat();
            match modern(ServeOptions::parse(&given).unwrap()) {
                Ok(options) => {
                    assert_eq!(options.plugin.as_deref(), Some("file"));
                    assert_eq!(options.filters, ["cow", name]);
                    assert_eq!(options.arguments, arguments);
                }
                Err(why) => {
                    assert!(filters::find(name).is_none(), "{why}");
                    let command = format!("diskpipe serve --filter={name} file {}", arguments.join(" "));
                    assert!(why.ends_with(&command), "{why}");
                }
            }
        }
        let options = modern(ServeOptions::parse(["memory", "1M"]).unwrap()).unwrap();
        assert_eq!((options.plugin.as_deref(), options.filters.len()), (Some("memory"), 0));
    }
}
