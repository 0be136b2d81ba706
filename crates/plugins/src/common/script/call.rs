//! What a script is asked: a method and its words.

use disk::Data;

/// Every method that a script may have, sorted; `load` only where the script is a program of its own.
pub(crate) const METHODS: [&str; 34] = [
    "after_fork",
    "block_size",
    "cache",
    "can_cache",
    "can_extents",
    "can_fast_zero",
    "can_flush",
    "can_fua",
    "can_multi_conn",
    "can_trim",
    "can_write",
    "can_zero",
    "close",
    "config",
    "config_complete",
    "default_export",
    "dump_plugin",
    "export_description",
    "extents",
    "flush",
    "get_ready",
    "get_size",
    "is_rotational",
    "list_exports",
    "load",
    "magic_config_key",
    "open",
    "pread",
    "preconnect",
    "pwrite",
    "thread_model",
    "trim",
    "unload",
    "zero",
];

/// Scripts that are not asked for bytes of a disk may print this much.
const MOST: usize = 16 << 20;

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// One of [`METHODS`].
    pub(crate) method: &'static str,
    /// What stands behind it.
    pub(crate) words: Vec<String>,
    /// For standard input.
    pub(crate) input: Option<Data>,
    /// The answer may hold so many bytes; one more is kept, as proof that there were more.
    pub(crate) most: usize,
}

impl Call {
    pub(crate) fn new(method: &'static str, words: &[&str]) -> Call {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Call { method, words, input: None, most: MOST }
    }

    /// A call about a range of the disk behind `handle`.
    pub(crate) fn of_range(method: &'static str, handle: &str, range: disk::Range) -> Call {
        Call::new(method, &[handle, &range.len.to_string(), &range.start.to_string()])
    }

    /// The error when the answer is longer than it may be.
    pub(super) fn too_much(&self) -> std::io::Error {
        std::io::Error::other(format!("{} printed more than {} bytes", self.method, self.most))
    }

    /// With one more word: flags, separated by commas.
    pub(crate) fn with_flags(mut self, flags: &[(&str, bool)]) -> Call {
        let given: Vec<&str> = flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
        self.words.push(given.join(","));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_and_flags_joined() {
        assert!(METHODS.is_sorted());
        let call = Call::of_range("zero", "h", disk::Range::new(512, 1024)).with_flags(&[
            ("fua", true),
            ("may_trim", false),
            ("fast", true),
        ]);
        assert_eq!(call.words, ["h", "1024", "512", "fua,fast"]);
    }
}
