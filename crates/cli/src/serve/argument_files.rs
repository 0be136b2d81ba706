//! `@PATH` on the command line: arguments out of a file.

use std::fs;
use std::io::ErrorKind;

/// The words of the command line with the lines of the file in the place of each `@FILE`.
///
/// A file holds one argument per line; empty lines and those that begin with `#` say nothing. A word that begins with
/// `@` and names no file stands for itself: the data plugin has such words. The error is a sentence.
pub(crate) fn expand(words: Vec<String>) -> Result<Vec<String>, String> {
    let mut expanded = Vec::with_capacity(words.len());
    for word in words {
        match word.strip_prefix('@').map(|path| (path, fs::read_to_string(path))) {
            None => expanded.push(word),
            Some((_, Err(error)))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) =>
            {
                expanded.push(word);
            }
            Some((path, Err(error))) => return Err(format!("@{path}: cannot read the arguments: {error}")),
            Some((_, Ok(text))) => expanded.extend(arguments(&text).map(str::to_owned)),
        }
    }
    Ok(expanded)
}

fn arguments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_lines_stand_where_its_name_stood() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "# a comment\nmemory\n\n  size=1M  \ndata=a b\n").unwrap();
        let at = format!("@{}", file.path().display());
        let words = expand(vec!["x".into(), at, "y=@z".into()]).unwrap();
        assert_eq!(words, ["x", "memory", "size=1M", "data=a b", "y=@z"]);
    }

    #[test]
    fn what_is_no_file_stands_for_itself() {
        let words = ["@0x1fe 0x55", "@/no/such/file", "@", "a@b"].map(str::to_owned).to_vec();
        assert_eq!(expand(words.clone()).unwrap(), words);
        assert!(expand(vec!["@/".into()]).unwrap_err().starts_with("@/: cannot read the arguments: "));
    }
}
