//! The options that people give to mkisofs, genisoimage or xorriso, as far as they are understood here.

use super::boot::{Emulation, Entry, Platform};
use crate::common::tree::Tree;
use disk::{Error, Result};
use std::process::{Command, Stdio};

/// What shall be on the CD, and how.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// What the volume says of itself.
    pub(super) volume: String,
    pub(super) system: String,
    pub(super) volume_set: String,
    pub(super) publisher: String,
    pub(super) preparer: String,
    pub(super) application: String,
    pub(super) copyright: String,
    pub(super) abstract_file: String,
    pub(super) bibliography: String,
    /// Plain names have up to 31 characters, and not 8 and 3.
    pub(super) long_names: bool,
    /// Joliet names have up to 103 characters, and not 64.
    pub(super) long_joliet: bool,
    /// Everybody may read everything, and nobody owns it.
    pub(super) rational: bool,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) file_mode: Option<u32>,
    pub(super) directory_mode: Option<u32>,
    /// A file TRANS.TBL in each directory.
    pub(super) translation_tables: bool,
    /// Nothing comes after the last file.
    pub(super) no_padding: bool,
    /// Patterns of what is left out of everything, of the plain directories, and of Joliet's.
    exclude: Vec<String>,
    hide: Vec<String>,
    hide_joliet: Vec<String>,
    /// What to boot.
    pub(super) boot: Vec<Entry>,
    /// The path of the list of these.
    pub(super) catalog: Option<String>,
}

/// How the shell splits this into words: by asking it, since people quote for it.
///
/// # Errors
/// When the shell does not like it.
pub(super) fn words(params: &str) -> Result<Vec<String>> {
    if params.trim().is_empty() {
        return Ok(vec![]);
    }
    let script = format!("for word in {params}\ndo printf '%s\\0' \"$word\"; done");
    let output = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success());
    let text = text.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::invalid(format!("params={params}: not what the shell can split: {}", said.trim()))
    })?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Options without a value that need nothing done: they are how it is here anyway, or make no difference.
const NOTHING_TO_DO: &[&str] = &[
    "J",
    "joliet",
    "R",
    "rock",
    "quiet",
    "v",
    "verbose",
    "gui",
    "D",
    "disable-deep-relocation",
    "d",
    "omit-period",
    "N",
    "omit-version-number",
    "L",
    "ldots",
    "allow-leading-dots",
    "allow-limited-size",
    "cache-inodes",
    "pad",
    "no-bak",
    "nobak",
];
/// Options of one letter that may stand together.
const LETTERS: &str = "JRrTlLDdNv";

impl Options {
    pub(super) fn parse(words: &[String]) -> Result<Options> {
        let mut options = Options { volume: "ISOIMAGE".into(), ..Options::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                return Err(not_here(word, "is not an option; give directories by dir="));
            };
            let (name, attached) =
                name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            let mut value = || -> Result<String> {
                let value = attached.map(str::to_owned).or_else(|| words.next().cloned());
                value.ok_or_else(|| Error::invalid(format!("{word} needs a value")))
            };
            if options.flag(name)?
                || options.text(name, &mut value)?
                || options.boot_option(name, &mut value)?
            {
                continue;
            }
            let together =
                !word.starts_with("--") && name.len() > 1 && name.chars().all(|c| LETTERS.contains(c));
            if !together {
                return Err(not_here(word, "is not understood here"));
            }
            for letter in name.chars() {
                options.flag(&letter.to_string())?;
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Options without a value; `false` if this is none.
    fn flag(&mut self, name: &str) -> Result<bool> {
        match name {
            "r" | "rational-rock" => self.rational = true,
            "T" | "translation-table" => self.translation_tables = true,
            "l" | "full-iso9660-filenames" => self.long_names = true,
            "joliet-long" => self.long_joliet = true,
            "no-pad" => self.no_padding = true,
            "eltorito-alt-boot" => self.boot.push(Entry::default()),
            "no-emul-boot" => self.entry().emulation = Emulation::None,
            "hard-disk-boot" => self.entry().emulation = Emulation::HardDisk,
            "boot-info-table" => self.entry().info_table = true,
            "no-boot" => self.entry().bootable = false,
            name => return Ok(NOTHING_TO_DO.contains(&name)),
        }
        Ok(true)
    }

    /// Options with a text as their value.
    fn text(&mut self, name: &str, value: &mut dyn FnMut() -> Result<String>) -> Result<bool> {
        let into = match name {
            "V" | "volid" => &mut self.volume,
            "A" | "appid" => &mut self.application,
            "P" | "publisher" => &mut self.publisher,
            "p" | "preparer" => &mut self.preparer,
            "sysid" => &mut self.system,
            "volset" => &mut self.volume_set,
            "copyright" => &mut self.copyright,
            "abstract" => &mut self.abstract_file,
            "biblio" => &mut self.bibliography,
            "m" | "x" | "exclude" | "hide" | "hide-joliet" => {
                let pattern = value()?;
                let patterns = match name {
                    "hide" => &mut self.hide,
                    "hide-joliet" => &mut self.hide_joliet,
                    _ => &mut self.exclude,
                };
                patterns.push(pattern);
                return Ok(true);
            }
            "iso-level" => {
                let level = value()?;
                self.long_names = match level.as_str() {
                    "1" => false,
                    "2" | "3" | "4" => true,
                    _ => return Err(Error::invalid(format!("-iso-level {level}: not a level from 1 to 4"))),
                };
                return Ok(true);
            }
            "input-charset" | "output-charset" => {
                let charset = value()?;
                let known = ["utf-8", "utf8", "default"].contains(&charset.to_lowercase().as_str());
                return if known {
                    Ok(true)
                } else {
                    Err(not_here(&charset, "is no character set but UTF-8"))
                };
            }
            "uid" | "gid" | "file-mode" | "dir-mode" => {
                let text = value()?;
                let radix = if name.ends_with("id") { 10 } else { 8 };
                let number = u32::from_str_radix(&text, radix)
                    .map_err(|_| Error::invalid(format!("-{name} {text}: not such a number")))?;
                *match name {
                    "uid" => &mut self.uid,
                    "gid" => &mut self.gid,
                    "file-mode" => &mut self.file_mode,
                    _ => &mut self.directory_mode,
                } = Some(number);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        *into = value()?;
        Ok(true)
    }

    fn boot_option(&mut self, name: &str, value: &mut dyn FnMut() -> Result<String>) -> Result<bool> {
        match name {
            "b" | "eltorito-boot" => self.entry().image = value()?,
            "e" | "efi-boot" => {
                let image = value()?;
                let entry = self.entry();
                (entry.image, entry.platform, entry.emulation) = (image, Platform::Efi, Emulation::None);
            }
            "c" | "eltorito-catalog" => self.catalog = Some(value()?),
            "boot-load-size" | "boot-load-seg" => {
                let text = value()?;
                if name == "boot-load-size" && text == "full" {
                    self.entry().load_size = None;
                    return Ok(true);
                }
                let number = match text.strip_prefix("0x") {
                    Some(digits) => u16::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                let number = number
                    .map_err(|_| Error::invalid(format!("-{name} {text}: not a number up to 65535")))?;
                match name {
                    "boot-load-size" => self.entry().load_size = Some(number),
                    _ => self.entry().load_segment = number,
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What is to be booted, that options are now about.
    fn entry(&mut self) -> &mut Entry {
        if self.boot.is_empty() {
            self.boot.push(Entry::default());
        }
        self.boot.last_mut().expect("there is one now")
    }

    fn check(&self) -> Result<()> {
        let texts = [
            ("-V", &self.volume, 32),
            ("-sysid", &self.system, 32),
            ("-volset", &self.volume_set, 128),
            ("-publisher", &self.publisher, 128),
            ("-p", &self.preparer, 128),
            ("-A", &self.application, 128),
            ("-copyright", &self.copyright, 37),
            ("-abstract", &self.abstract_file, 37),
            ("-biblio", &self.bibliography, 37),
        ];
        for (name, text, most) in texts {
            if text.len() > most || !text.is_ascii() {
                return Err(Error::invalid(format!(
                    "{name} {text}: more than {most} characters, or not ASCII"
                )));
            }
        }
        if self.boot.iter().any(|entry| entry.image.is_empty()) {
            return Err(Error::invalid(
                "there are options for booting, but not what to boot: -b FILE or -e FILE",
            ));
        }
        if self.catalog.is_some() && self.boot.is_empty() {
            return Err(Error::invalid("-c needs what to boot: -b FILE or -e FILE"));
        }
        Ok(())
    }

    pub(super) fn excludes(&self, tree: &Tree, node: usize) -> bool {
        is_one_of(&self.exclude, tree, node)
    }

    pub(super) fn hides(&self, tree: &Tree, node: usize) -> bool {
        is_one_of(&self.hide, tree, node)
    }

    pub(super) fn hides_in_joliet(&self, tree: &Tree, node: usize) -> bool {
        is_one_of(&self.hide_joliet, tree, node)
    }
}

fn not_here(word: &str, why: &str) -> Error {
    Error::invalid(format!(
        "{word} {why} (or give prog=genisoimage or prog=xorriso, which have options of their own)"
    ))
}

/// Whether a pattern is the node's name, or its path.
fn is_one_of(patterns: &[String], tree: &Tree, node: usize) -> bool {
    let is_it = |pattern: &String| {
        let pattern = pattern.trim_start_matches('/').as_bytes();
        matches(pattern, &tree.nodes[node].name) || matches(pattern, tree.shown(node).as_bytes())
    };
    !patterns.is_empty() && patterns.iter().any(is_it)
}

/// As the shell compares a pattern with `*`, `?` and `[a-z]` to a name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how much it has eaten so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() || p < pattern.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => (n < name.len()).then_some(1),
            Some(b'[') => name.get(n).and_then(|byte| class(&pattern[p..], *byte)),
            Some(b'\\') if p + 1 < pattern.len() => (name.get(n) == pattern.get(p + 1)).then_some(2),
            Some(byte) => (name.get(n) == Some(byte)).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(len), _) => (p, n) = (p + len, n + 1),
            (None, Some((at, eaten))) if eaten < name.len() => {
                star = Some((at, eaten + 1));
                (p, n) = (at + 1, eaten + 1);
            }
            _ => return false,
        }
    }
    true
}

/// How long a class `[...]` at the beginning of the pattern is, if the byte is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negative = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negative { 2 } else { 1 };
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|b| *b == b']')?;
    let (mut at, mut found) = (first, false);
    while at < end {
        let is_range = pattern[at + 1] == b'-' && at + 2 < end;
        let last = if is_range { pattern[at + 2] } else { pattern[at] };
        found |= (pattern[at]..=last).contains(&byte);
        at += if is_range { 3 } else { 1 };
    }
    (found != negative).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(params: &str) -> Result<Options> {
        Options::parse(&words(params)?)
    }

    #[test]
    fn options_are_what_the_shell_makes_of_them() {
        let options = parsed(r#"-JrT -V "My Disk"' 'Image --publisher=me"#).unwrap();
        assert_eq!((options.volume.as_str(), options.publisher.as_str()), ("My Disk Image", "me"));
        assert!(options.rational && options.translation_tables && !options.long_names);
        assert_eq!(parsed("").unwrap().volume, "ISOIMAGE");
        assert!(
            words("'open").unwrap_err().to_string().starts_with("params='open: not what the shell can split")
        );
    }

    #[test]
    fn booting_is_described_by_several_options_for_each_image() {
        let options = parsed(
            "-b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
             -eltorito-alt-boot -e efi.img -no-emul-boot",
        )
        .unwrap();
        let [bios, efi] = &options.boot[..] else { panic!("{:?}", options.boot) };
        assert_eq!((bios.load_size, bios.info_table, bios.platform), (Some(4), true, Platform::Bios));
        assert_eq!((efi.image.as_str(), efi.platform), ("efi.img", Platform::Efi));
        assert_eq!(options.catalog.as_deref(), Some("isolinux/boot.cat"));
    }

    #[test]
    fn what_is_not_understood_names_the_way_out() {
        for params in
            ["-udf", "-JX", "file", "-V", "-boot-load-size x", "-no-emul-boot", "-c x", "-iso-level 9"]
        {
            let error = parsed(params).unwrap_err().to_string();
            let word = params.split(' ').next().unwrap();
            assert!(error.contains(word) || error.contains("-b FILE"), "{params}: {error}");
        }
        assert!(parsed("-udf").unwrap_err().to_string().contains("prog="));
        assert!(parsed(&format!("-V {}", "x".repeat(33))).is_err());
    }

    #[test]
    fn patterns_match_as_in_the_shell() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "[a", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
