//! Which declared key a mistyped one may have meant.

use crate::Param;

/// The declared key that is most like `key`, with the component that declares it, if any is near.
pub fn nearest_key(key: &str, stack: &[(&str, &[Param])]) -> Option<(String, String)> {
    let rows =
        stack.iter().flat_map(|(component, params)| params.iter().map(move |param| (component, param)));
    let keys = rows.filter(|(_, param)| !param.hidden).flat_map(|(component, param)| {
        std::iter::once(param.key).chain(param.aliases.iter().copied()).map(move |key| (key, component))
    });
    // A third of the key may be mistyped: "siez" is size, "xyz" is nothing.
    let far = key.chars().count().div_ceil(3).max(1);
    keys.map(|(near, component)| (distance(key, near), near, component))
        .filter(|(distance, ..)| *distance <= far)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, near, component)| (near.to_owned(), (*component).to_string()))
}

/// How many letters to insert, remove, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
            let mut best = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delay, Params, Size};
    use proptest::prelude::*;

    #[derive(Params)]
    #[expect(dead_code, reason = "only the table matters")]
    struct Keys {
        /// A size.
        #[param(alias = "length")]
        size: Size,
        /// A delay.
        read_delay: Delay,
        /// Not shown.
        #[param(hidden)]
        internal: Option<bool>,
    }

    #[test]
    fn a_slip_finds_its_key_and_the_component_that_has_it() {
        let stack: &[(&str, &[Param])] = &[("delay", &[]), ("memory", Keys::PARAMS)];
        for (typed, meant) in [
            ("siez", "size"),
            ("Size", "size"),
            ("sizes", "size"),
            ("readdelay", "read-delay"),
            ("lenght", "length"),
        ] {
            assert_eq!(nearest_key(typed, stack), Some((meant.to_owned(), "memory".to_owned())), "{typed}");
        }
        for typed in ["quux", "s", "interna", "readline"] {
            assert_eq!(nearest_key(typed, stack), None, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_the_same(a in "[abc]{0,6}", b in "[abc]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
