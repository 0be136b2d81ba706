//! Plugins that nbdkit has and this program has not, and what there is instead.

/// What stands in the way, to be read behind "it needs".
const NEEDS: [(&str, &[&str]); 12] = [
    ("a client of BitTorrent", &["torrent"]),
    ("a client of Google Cloud Storage", &["gcs"]),
    ("a client of HTTP", &["curl"]),
    ("a client of NFS", &["nfs"]),
    ("a client of S3", &["S3"]),
    ("a client of SSH", &["ssh"]),
    ("a graphics card and OpenCL", &["vram"]),
    ("libguestfs", &["guestfs"]),
    ("libvirt", &["libvirt"]),
    (
        "the interface for plugins in C; scripts and programs can be served by the plugin sh",
        &["cc", "golang", "ocaml", "rust"],
    ),
    (
        "an interpreter of the language; the plugin sh serves scripts in any language, quickly with persistent=true",
        &["lua", "perl", "python", "ruby", "tcl"],
    ),
    ("VMware's VDDK, which may not be distributed", &["vddk"]),
];

/// A sentence about a plugin that people know from nbdkit; `None` for other names.
pub(crate) fn explain(name: &str) -> Option<String> {
    let (needs, _) = NEEDS.iter().find(|(_, names)| names.contains(&name))?;
    Some(format!("the plugin {name} is not built yet; it needs {needs}"))
}

#[cfg(test)]
mod tests {
    use super::super::{old_names, options::ServeOptions, stack::Stack};

    #[test]
    fn every_plugin_that_nbdkit_has_or_had_is_there_or_is_explained() {
        const KNOWN: &str = "blkio cc cdi curl data eval example1 example2 example3 example4 ext2 file floppy full gcs golang \
            guestfs gzip info iso libvirt linuxdisk lua memory nbd nfs null ocaml ondemand ones partitioning pattern perl \
            python random ruby rust S3 sh sparse-random split ssh streaming tar tcl tmpdisk torrent vddk vram zero";
        for name in KNOWN.split_whitespace() {
            let options = ServeOptions::parse([name]).unwrap();
            let refused = match old_names::modern(options) {
                Ok(options) => Stack::find(&options).err(),
                Err(why) => Some(why),
            };
            let told = |why: &String| why.contains("not built yet") && why.contains(name);
            assert!(refused.as_ref().is_none_or(told), "{name}: {refused:?}");
        }
    }
}
