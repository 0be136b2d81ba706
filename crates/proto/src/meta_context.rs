//! Metadata contexts: named views of which parts of an export are what, and the queries that select them.

/// The context of allocation: holes and zeroes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The namespace of one dirty bitmap each in qemu: followed by the bitmap's name.
pub const QEMU_DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// How deep in the backing chain an extent is allocated, in qemu.
pub const QEMU_ALLOCATION_DEPTH: &str = "qemu:allocation-depth";

/// `base:allocation`: the extent is not allocated.
pub const STATE_HOLE: u64 = 1;
/// `base:allocation`: the extent reads as zeroes.
pub const STATE_ZERO: u64 = 2;
/// `qemu:dirty-bitmap:*`: the extent was written since the bitmap was started.
pub const STATE_DIRTY: u64 = 1;

/// A context that the server agreed to report on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Context {
    /// The number that stands for it in this connection.
    pub id: u32,
    /// Its full name.
    pub name: String,
}

/// Whether a query for *listing* contexts selects `name`: the name itself, or a leading part of it that ends in a colon
/// (`base:`, `qemu:`, `qemu:dirty-bitmap:`).
pub fn lists(query: &str, name: &str) -> bool {
    query == name || (query.ends_with(':') && name.starts_with(query))
}

/// Whether a query for *setting* contexts selects `name`: only the full name does.
pub fn sets(query: &str, name: &str) -> bool {
    query == name
}

/// Whether `query` starts with a namespace, as every query must.
pub fn is_query(query: &str) -> bool {
    query.find(':').is_some_and(|colon| colon > 0)
}

/// What a status of this context means, as `nbdinfo --map` says it; `None` for a context that is not known here.
pub fn describe(context: &str, status: u64) -> Option<String> {
    if context == BASE_ALLOCATION {
        return match status {
            0 => Some("data".into()),
            STATE_HOLE => Some("hole".into()),
            STATE_ZERO => Some("zero".into()),
            3 => Some("hole,zero".into()),
            _ => None,
        };
    }
    if context.starts_with(QEMU_DIRTY_BITMAP) {
        return match status {
            0 => Some("clean".into()),
            STATE_DIRTY => Some("dirty".into()),
            _ => None,
        };
    }
    if context == QEMU_ALLOCATION_DEPTH {
        return Some(match status {
            0 => "absent".into(),
            1 => "local".into(),
            depth => format!("backing depth {depth}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_lists_its_contexts_but_sets_none() {
        assert!(lists("base:", BASE_ALLOCATION) && !sets("base:", BASE_ALLOCATION));
        assert!(lists(BASE_ALLOCATION, BASE_ALLOCATION) && sets(BASE_ALLOCATION, BASE_ALLOCATION));
        assert!(lists(QEMU_DIRTY_BITMAP, "qemu:dirty-bitmap:b0"));
        assert!(!lists("base:alloc", BASE_ALLOCATION) && !lists("", BASE_ALLOCATION));
    }

    #[test]
    fn a_query_starts_with_a_namespace() {
        assert!(is_query("base:") && is_query("x-test:a:b"));
        assert!(!is_query("") && !is_query("base") && !is_query(":x"));
    }

    #[test]
    fn statuses_have_words() {
        assert_eq!(describe(BASE_ALLOCATION, 3).as_deref(), Some("hole,zero"));
        assert_eq!(describe("qemu:dirty-bitmap:b0", 1).as_deref(), Some("dirty"));
        assert_eq!(describe(QEMU_ALLOCATION_DEPTH, 4).as_deref(), Some("backing depth 4"));
        assert_eq!(describe("x-other:a", 1), None);
    }
}
