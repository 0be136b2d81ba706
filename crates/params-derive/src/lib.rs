//! The derive macros behind `params`: a struct becomes a parameter table and the code that fills it,
//! an enum becomes a list of words.
#![forbid(unsafe_code)]

mod choice;
mod doc;
mod params;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a set of `key=value` parameters.
///
/// The struct's doc comment is the component's summary (first line) and details; each field's doc
/// comment is the parameter's help. The key is the field's name with `-` for `_`. The field's type says
/// what is accepted and how often: `T` is required unless it has a default, `Option<T>` may be left out,
/// `Vec<T>` may be repeated.
///
/// `#[param(...)]` on a field:
///
/// * `magic`: a bare argument on the command line belongs to this key;
/// * `default = "64K"`: used when the key is absent, written as a user would write it;
/// * `name = "rate"`: the key, where it differs from the field's name;
/// * `alias = "block"`: another accepted key (may be repeated);
/// * `placeholder = "DIR"`: what help shows after `=` instead of the type's own word;
/// * `hidden`: accepted, but in no help, manual or completion;
/// * `flatten`: the field's type is itself a `Params` struct whose parameters join these;
/// * `rest`: the field (a `Vec<(String, String)>`) takes every argument that is still there.
#[proc_macro_derive(Params, attributes(param))]
pub fn derive_params(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    params::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an enum without payload a parameter value: one word per variant, in kebab case.
///
/// `#[choice(name = "word")]` and `#[choice(alias = "word")]` on a variant change and add words.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn derive_choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    choice::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
