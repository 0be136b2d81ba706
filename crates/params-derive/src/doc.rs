//! Doc comments as text, and Rust names as command-line words.

use syn::{Attribute, Expr, Lit, Meta};

/// The doc comment, one line per line, without the leading blank of each.
pub(crate) fn text(attrs: &[Attribute]) -> String {
    let lines: Vec<String> = attrs
        .iter()
        .filter_map(|attr| {
            let Meta::NameValue(pair) = &attr.meta else { return None };
            let Expr::Lit(value) = &pair.value else { return None };
            let Lit::Str(line) = &value.lit else { return None };
            let line = line.value();
            pair.path.is_ident("doc").then(|| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        })
        .collect();
    lines.join("\n").trim().to_owned()
}

/// The first paragraph on one line, and everything after it.
pub(crate) fn summary_and_details(text: &str) -> (String, String) {
    let (first, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    (first.replace('\n', " "), rest.trim().to_owned())
}

/// `block_size` as `block-size`; a raw identifier (`r#type`) loses its prefix.
pub(crate) fn key_of(field: &syn::Ident) -> String {
    let name = field.to_string();
    name.strip_prefix("r#").unwrap_or(&name).replace('_', "-")
}

/// `NoTrim` as `no-trim`.
pub(crate) fn word_of(variant: &syn::Ident) -> String {
    let mut word = String::new();
    for letter in variant.to_string().chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}
