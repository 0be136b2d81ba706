//! A server's exports as text or JSON.

use crate::{
    info::{
        color::Paint,
        json,
        server::{Export, Speech},
    },
    size,
};
use client::proto::flags::TransmissionFlags as Flags;
use std::fmt::Write;

/// What an export can do, in the order in which it is shown.
fn abilities(speech: &Speech, flags: Flags) -> [(&'static str, bool); 10] {
    [
        ("is_rotational", flags.has(Flags::ROTATIONAL)),
        ("is_read_only", flags.has(Flags::READ_ONLY)),
        ("can_cache", flags.has(Flags::SEND_CACHE)),
        ("can_df", speech.replies.has_chunks() && flags.has(Flags::SEND_DF)),
        ("can_fast_zero", flags.has(Flags::SEND_FAST_ZERO)),
        ("can_flush", flags.has(Flags::SEND_FLUSH)),
        ("can_fua", flags.has(Flags::SEND_FUA)),
        ("can_multi_conn", flags.has(Flags::CAN_MULTI_CONN)),
        ("can_trim", flags.has(Flags::SEND_TRIM)),
        ("can_zero", flags.has(Flags::SEND_WRITE_ZEROES)),
    ]
}

/// For people.
pub(crate) fn text(speech: &Speech, exports: &[Export], colours: bool) -> String {
    let with = if speech.tls { "with" } else { "without" };
    let packets = if speech.replies.has_chunks() { "structured" } else { "simple" };
    let protocol = speech.protocol.name();
    let mut out =
        Paint::Dim.on(&format!("protocol: {protocol} {with} TLS, using {packets} packets\n"), colours);
    for export in exports {
        out += &one_text(speech, export, colours);
    }
    out
}

fn one_text(speech: &Speech, export: &Export, colours: bool) -> String {
    let mut head = format!("export={}:\n", json::quote(&export.name));
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(head, "\t{name}: {}", printable(value)); // a String takes everything
        }
    };
    line("description", export.description.as_deref());
    let human = size::human(export.size);
    let plain = export.size.to_string();
    line("export-size", Some(&if human == plain { plain } else { format!("{plain} ({human})") }));
    line("content", export.content.as_deref());
    line("uri", export.uri.as_deref());
    let mut out = Paint::Bold.on(&head, colours);
    let mut rest = String::new();
    if !export.contexts.is_empty() {
        rest += "\tcontexts:\n";
        export.contexts.iter().for_each(|context| rest += &format!("\t\t{}\n", printable(context)));
    }
    let abilities = abilities(speech, export.flags);
    rest += &format!("\t{}: {}\n", abilities[0].0, abilities[0].1);
    out += &Paint::Dim.on(&rest, colours);
    for (name, value) in &abilities[1..] {
        let paint = match (*name, value) {
            ("is_read_only", _) => Paint::Plain,
            (_, true) => Paint::Green,
            (_, false) => Paint::Red,
        };
        out += &paint.on(&format!("\t{name}: {value}\n"), colours);
    }
    if let Some(sizes) = export.block_sizes {
        let blocks = [("minimum", sizes.minimum), ("preferred", sizes.preferred), ("maximum", sizes.maximum)];
        blocks.iter().for_each(|(name, bytes)| out += &format!("\tblock_size_{name}: {bytes}\n"));
    }
    out
}

/// What a server says must not drive a terminal.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
}

/// For programs.
pub(crate) fn json(speech: &Speech, exports: &[Export]) -> String {
    let mut out = format!(
        "{{\n\"protocol\": {},\n\"TLS\": {},\n\"structured\": {},\n\"exports\": [\n",
        json::quote(speech.protocol.name()),
        speech.tls,
        speech.replies.has_chunks()
    );
    let list: Vec<String> = exports.iter().map(|export| one_json(speech, export)).collect();
    out += &list.join(",\n");
    if list.is_empty() {
        out += "]\n}\n";
    } else {
        out += " ]\n}\n";
    }
    out
}

fn one_json(speech: &Speech, export: &Export) -> String {
    let mut fields = vec![format!("\"export-name\": {}", json::quote(&export.name))];
    let mut text = |name: &str, value: &Option<String>| {
        fields.extend(value.as_ref().map(|value| format!("\"{name}\": {}", json::quote(value))));
    };
    text("description", &export.description);
    text("content", &export.content);
    text("uri", &export.uri);
    if !export.contexts.is_empty() {
        let names: Vec<String> =
            export.contexts.iter().map(|name| format!("\t\t{}", json::quote(name))).collect();
        fields.push(format!("\"contexts\": [\n{}\n\t]", names.join(",\n")));
    }
    fields.extend(abilities(speech, export.flags).iter().map(|(name, value)| format!("\"{name}\": {value}")));
    if let Some(sizes) = export.block_sizes {
        fields.push(format!("\"block_size_minimum\": {}", sizes.minimum));
        fields.push(format!("\"block_size_preferred\": {}", sizes.preferred));
        fields.push(format!("\"block_size_maximum\": {}", sizes.maximum));
    }
    fields.push(format!("\"export-size\": {}", export.size));
    fields.push(format!("\"export-size-str\": {}", json::quote(&size::human(export.size))));
    format!("\t{{\n\t{}\n\t}}", fields.join(",\n\t"))
}
