//! `#[derive(Choice)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let Data::Enum(body) = &input.data else {
        return Err(Error::new_spanned(name, "Choice needs an enum"));
    };
    let (mut words, mut parse, mut print) = (Vec::new(), Vec::new(), Vec::new());
    for variant in &body.variants {
        let Fields::Unit = variant.fields else {
            return Err(Error::new_spanned(variant, "a choice is a word: its variant carries nothing"));
        };
        let ident = &variant.ident;
        let (mut word, mut aliases) = (crate::doc::word_of(ident), Vec::new());
        for attr in variant.attrs.iter().filter(|attr| attr.path().is_ident("choice")) {
            attr.parse_nested_meta(|meta| {
                let value = meta.value()?.parse::<LitStr>()?.value();
                if meta.path.is_ident("name") {
                    word = value;
                } else if meta.path.is_ident("alias") {
                    aliases.push(value);
                } else {
                    return Err(meta.error("expected name or alias"));
                }
                Ok(())
            })?;
        }
        parse.push(quote!(#word #(| #aliases)* => ::core::option::Option::Some(#name::#ident)));
        print.push(quote!(#name::#ident => #word));
        words.push(word);
    }
    Ok(quote! {
        const _: () = {
            impl ::params::Choice for #name {
                const WORDS: &'static [&'static str] = &[#(#words),*];
                fn from_word(word: &str) -> ::core::option::Option<Self> {
                    match word { #(#parse,)* _ => ::core::option::Option::None }
                }
                fn word(&self) -> &'static str {
                    match self { #(#print),* }
                }
            }
            impl ::params::Value for #name {
                const KIND: ::params::Kind = ::params::Kind::OneOf(<#name as ::params::Choice>::WORDS);
                fn from_text(text: &str) -> ::core::result::Result<Self, ::params::Wrong> {
                    ::params::parse_choice(text)
                }
            }
            impl ::core::fmt::Display for #name {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.write_str(::params::Choice::word(self))
                }
            }
        };
    })
}
