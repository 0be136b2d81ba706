//! `#[derive(Params)]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Result};

/// What `#[param(...)]` says about one field.
struct Declared {
    key: String,
    aliases: Vec<String>,
    default: Option<String>,
    placeholder: Option<String>,
    magic: bool,
    hidden: bool,
    flatten: bool,
    rest: bool,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let Data::Struct(body) = &input.data else {
        return Err(Error::new_spanned(name, "Params needs a struct"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "Params needs a struct without generics"));
    }
    let none = syn::punctuated::Punctuated::new();
    let fields = match &body.fields {
        Fields::Named(fields) => &fields.named,
        Fields::Unit => &none,
        Fields::Unnamed(_) => {
            return Err(Error::new_spanned(name, "parameters need names: use a struct with { }"));
        }
    };
    let (summary, details) = crate::doc::summary_and_details(&crate::doc::text(&input.attrs));

    // Each field contributes one slice of the table (a flattened struct contributes its own table), and
    // one expression that takes its value out of `args`.
    let (mut slices, mut builds) = (Vec::new(), Vec::new());
    let (mut magic_seen, mut rest_build) = (false, None);
    for field in fields {
        let declared = declared(field)?;
        let (id, ty) = (&field.ident, &field.ty);
        if declared.magic && std::mem::replace(&mut magic_seen, true) {
            return Err(Error::new_spanned(field, "only one parameter can be magic"));
        }
        if declared.flatten {
            slices.push(quote!(<#ty as ::params::Params>::PARAMS));
            builds.push(quote!(let #id = <#ty as ::params::Params>::parse(args)?;));
        } else if declared.rest {
            // Runs after all others, whatever its place in the struct.
            rest_build = Some(quote!(let #id = args.take_rest();));
        } else {
            let row = format_ident!("ROW_{}", builds.len(), span = Span::call_site());
            let table_row = table_row(field, &declared);
            slices.push(quote!(&[#table_row]));
            builds.push(quote! {
                const #row: &::params::Param = &#table_row;
                let #id = <#ty as ::params::Field>::take(args, #row)?;
            });
        }
    }
    builds.extend(rest_build);
    let ids = fields.iter().map(|field| &field.ident);
    let construct = match &body.fields {
        Fields::Unit => quote!(#name),
        _ => quote!(#name { #(#ids),* }),
    };
    Ok(quote! {
        const _: () = {
            const SLICES: &[&[::params::Param]] = &[#(#slices),*];
            const TABLE: [::params::Param; ::params::total(SLICES)] = ::params::join(SLICES);
            impl ::params::Params for #name {
                const SUMMARY: &'static str = #summary;
                const DETAILS: &'static str = #details;
                const PARAMS: &'static [::params::Param] = &TABLE;
                fn parse(args: &mut ::params::Args) -> ::core::result::Result<Self, ::params::ParamError> {
                    let _ = &args;
                    #(#builds)*
                    ::core::result::Result::Ok(#construct)
                }
            }
        };
    })
}

fn declared(field: &Field) -> Result<Declared> {
    let ident = field.ident.as_ref().ok_or_else(|| Error::new_spanned(field, "parameters need names"))?;
    let mut out = Declared {
        key: crate::doc::key_of(ident),
        aliases: Vec::new(),
        default: None,
        placeholder: None,
        magic: false,
        hidden: false,
        flatten: false,
        rest: false,
    };
    for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("param")) {
        attr.parse_nested_meta(|meta| {
            let text = || -> Result<String> { Ok(meta.value()?.parse::<LitStr>()?.value()) };
            match meta.path.get_ident().map(ToString::to_string).as_deref() {
                Some("name") => out.key = text()?,
                Some("alias") => out.aliases.push(text()?),
                Some("default") => out.default = Some(text()?),
                Some("placeholder") => out.placeholder = Some(text()?),
                Some("magic") => out.magic = true,
                Some("hidden") => out.hidden = true,
                Some("flatten") => out.flatten = true,
                Some("rest") => out.rest = true,
                _ => {
                    return Err(meta.error(
                        "expected name, alias, default, placeholder, magic, hidden, flatten or rest",
                    ));
                }
            }
            Ok(())
        })?;
    }
    if !key_is_plain(&out.key) || !out.aliases.iter().all(|alias| key_is_plain(alias)) {
        return Err(Error::new_spanned(field, "a key is a letter, then letters, digits, '.', '_' or '-'"));
    }
    Ok(out)
}

/// The rule of the command line: another key could never be typed.
fn key_is_plain(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn table_row(field: &Field, declared: &Declared) -> TokenStream {
    let (ty, help) = (&field.ty, crate::doc::text(&field.attrs));
    let Declared { key, aliases, magic, hidden, .. } = declared;
    let default = option(&declared.default);
    let placeholder = option(&declared.placeholder);
    quote! {
        ::params::Param {
            key: #key,
            aliases: &[#(#aliases),*],
            help: #help,
            default: #default,
            placeholder: #placeholder,
            magic: #magic,
            hidden: #hidden,
            kind: <#ty as ::params::Field>::KIND,
            required: <#ty as ::params::Field>::REQUIRED && #default.is_none(),
            repeatable: <#ty as ::params::Field>::REPEATABLE,
            accepts: <#ty as ::params::Field>::accepts,
        }
    }
}

fn option(text: &Option<String>) -> TokenStream {
    match text {
        Some(text) => quote!(::core::option::Option::<&'static str>::Some(#text)),
        None => quote!(::core::option::Option::<&'static str>::None),
    }
}
