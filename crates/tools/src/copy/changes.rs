//! Which parts of a disk have changed, as a metadata context tells.

use crate::copy::ranges::Ranges;
use anyhow::{Context, Result, bail};
use disk::{Disk, Range};

/// How many ranges are asked for at once.
const LIMIT: usize = 64 << 10;
/// Of dirty bitmaps: the range has changed.
const DIRTY: u64 = 1;
/// The context that counts how many layers down the data are.
const DEPTH: &str = "qemu:allocation-depth";
/// Of that: in the topmost layer.
const LOCAL: u64 = 1;

/// The name of a context, from what stands on the command line: a bitmap may be named alone.
pub(crate) fn context(name: &str) -> String {
    match name.contains(':') {
        true => name.into(),
        false => format!("qemu:dirty-bitmap:{name}"),
    }
}

/// What the context `name` says has changed.
///
/// # Errors
/// The disk has no such context, or fails.
pub(crate) fn told_by(disk: &dyn Disk, name: &str) -> Result<Ranges> {
    let facts = disk.facts();
    let Some(context) = facts.contexts.iter().position(|context| **context == *name) else {
        bail!("--incremental={name}: the source has no such metadata context");
    };
    let (mut changed, mut at) = (Ranges::new(), 0);
    while at < facts.size {
        let rest = Range::new(at, facts.size - at);
        let told =
            disk.status(context, rest, LIMIT).wait().with_context(|| format!("asking for {name} at {at}"))?;
        let before = at;
        for status in told {
            let range = Range::new(at, status.len.min(facts.size - at));
            let is_changed = match name {
                DEPTH => status.value == LOCAL,
                _ => status.value & DIRTY != 0,
            };
            if is_changed {
                changed.add(range);
            }
            at = range.end();
        }
        if at == before {
            bail!("asking for {name} at {at}: the source did not answer");
        }
    }
    Ok(changed)
}
