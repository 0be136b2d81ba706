//! The partitions of a disk, and what is on each.

use super::human;
use crate::{
    info::json::quote,
    volume::{Disk, Volume},
};
use inspect::partitions::Table;

/// All of them, as text or JSON.
pub(super) fn show(disk: &Disk, table: &Table, as_json: bool, is_human: bool) -> String {
    let volumes = table.partitions.iter().map(|partition| disk.volume(partition));
    if as_json {
        let lines: Vec<String> = volumes.map(|volume| json(&volume)).collect();
        let (scheme, sector) = (table.scheme.word(), table.sector);
        return format!(
            "{{ \"table\": \"{scheme}\", \"sector\": {sector}, \"partitions\": [\n{}\n] }}\n",
            lines.join(",\n")
        );
    }
    let size = |bytes: u64| if is_human { human(bytes) } else { bytes.to_string() };
    let mut rows = vec![["PART", "START", "SIZE", "TYPE", "CONTENT", "LABEL"].map(str::to_string)];
    rows.extend(volumes.map(|v| {
        let p = v.partition;
        // A name may have anything in it.
        let label = v.label().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        [
            format!(":{}", p.number),
            size(p.range.start),
            size(p.range.len),
            p.r#type.describe(),
            v.what().into(),
            label,
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [w0, w1, w2, w3, w4] = [0, 1, 2, 3, 4].map(width);
    let line = |[part, start, size, kind, content, label]: &[String; 6]| {
        let line = format!("{part:<w0$}  {start:>w1$}  {size:>w2$}  {kind:<w3$}  {content:<w4$}  {label}");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn json(volume: &Volume<'_>) -> String {
    let p = volume.partition;
    let mut fields = vec![
        format!("\"number\": {}", p.number),
        format!("\"start\": {}", p.range.start),
        format!("\"size\": {}", p.range.len),
        format!("\"type\": {}", quote(&p.r#type.number())),
        format!("\"type-name\": {}", quote(&p.r#type.describe())),
        format!("\"bootable\": {}", p.bootable),
        format!("\"content\": {}", quote(volume.what())),
    ];
    let about = volume.content.as_ref().ok().map(|found| found.about());
    let texts = [
        ("name", Some(&p.name)),
        ("partuuid", Some(&p.id)),
        ("label", about.map(|about| &about.label)),
        ("uuid", about.map(|about| &about.uuid)),
    ];
    for (key, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            fields.push(format!("\"{key}\": {}", quote(text)));
        }
    }
    format!("{{ {} }}", fields.join(", "))
}
