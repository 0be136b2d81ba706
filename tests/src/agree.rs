//! The same command line for nbdkit and for ours.

use crate::Run;

/// Serves with both, for each text, what `arguments` makes of it; what a client then says must be the same, and what one
/// of them refuses the other refuses.
pub fn both_agree(texts: &[&str], arguments: impl Fn(&str) -> Vec<String>, command: &str) {
    if crate::absent(&["nbdkit", "nbdinfo", "nbdsh"]) {
        return;
    }
    for text in texts {
        let ask = |run: Run| {
            let ended = run.args(["-U", "-"]).args(arguments(text)).args(["--run", command]).end();
            (ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned(), ended.stderr)
        };
        let (theirs, ours) = (ask(Run::new("nbdkit")), ask(Run::diskpipe().arg("serve")));
        let line = arguments(text).join(" ");
        assert_eq!((theirs.0, &theirs.1), (ours.0, &ours.1), "{line}: {} and {}", theirs.2, ours.2);
    }
}

/// Words of a command line, in which `TEXT` stands for `text`.
pub fn words(words: &[&str], text: &str) -> Vec<String> {
    words.iter().map(|word| word.replace("TEXT", text)).collect()
}
