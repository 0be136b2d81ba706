//! What a disk may hold after the power was cut: of the writes since the last flush any, whole or in part.
//!
//! A write that asked to be stable when answered (FUA) is there as soon as any later one is: when that came, it had
//! been answered. Where two wrote to one place and both are there, the later one counts, as disks promise. A write is
//! torn at sectors: of a torn one, one run of its sectors is there.

use disk::{Data, Range};

/// A write, in the order in which they were answered.
#[derive(Clone)]
pub(super) struct Write {
    pub(super) at: u64,
    pub(super) data: Data,
    pub(super) fua: bool,
}

/// How states are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// What is written whole or not at all, in bytes; 0: every write is.
    pub(super) sector: u64,
    /// Of an epoch, at most so many are listed.
    pub(super) most: u64,
    pub(super) seed: u64,
}

/// How many states are worth looking at: all of them where they are few.
pub(super) fn count(writes: &[Write], rules: Rules) -> u64 {
    match u32::try_from(writes.len()) {
        // All sets of whole writes, and for each write one that is torn.
        Ok(n) if n < 16 && (1 << n) <= rules.most => ((1u64 << n) + torn(writes, rules)).min(rules.most),
        _ => rules.most,
    }
}

fn torn(writes: &[Write], rules: Rules) -> u64 {
    writes.iter().filter(|write| can_be_torn(write, rules)).count() as u64
}

fn can_be_torn(write: &Write, rules: Rules) -> bool {
    rules.sector > 0 && sectors(write, rules.sector) > 1
}

fn sectors(write: &Write, sector: u64) -> u64 {
    (write.at + write.data.len()).div_ceil(sector) - write.at / sector
}

/// The parts of writes that are there in state `number`, in order. State 0 has none of them, state 1 all.
pub(super) fn state(writes: &[Write], number: u64, rules: Rules) -> Vec<(u64, Data)> {
    let mut random = Random::new(rules.seed, number);
    let n = writes.len();
    let few = n < 16 && (1u64 << n) <= rules.most;
    let mut there = vec![There::None; n];
    match number {
        0 => {}
        1 => there.fill(There::Whole),
        // Each set of whole writes has its number; 1 and the one that would be all change places.
        _ if few && number < 1 << n => {
            let set = if number == (1 << n) - 1 { 1 } else { number };
            for (n, there) in there.iter_mut().enumerate() {
                if set >> n & 1 == 1 {
                    *there = There::Whole;
                }
            }
        }
        // All up to one, which is torn.
        _ if few || number.is_multiple_of(2) => {
            let cut = match number.checked_sub(1 << n.min(62)).filter(|_| few) {
                Some(which) => {
                    (0..n).filter(|n| can_be_torn(&writes[*n], rules)).nth(which as usize % n.max(1))
                }
                None => None,
            };
            let cut = cut.unwrap_or_else(|| random.below(n as u64 + 1) as usize).min(n);
            there[..cut].fill(There::Whole);
            if let Some(there) = there.get_mut(cut) {
                *there = There::Torn;
            }
        }
        // Any, some of them torn.
        _ => {
            let (keeps, tears) = (1 + random.below(15), random.below(4));
            for there in &mut there {
                *there = match random.below(16) < keeps {
                    true if random.below(8) < tears => There::Torn,
                    true => There::Whole,
                    false => There::None,
                };
            }
        }
    }
    if let Some(last) = there.iter().rposition(|there| *there != There::None) {
        for (there, write) in there[..last].iter_mut().zip(writes) {
            if write.fua {
                *there = There::Whole;
            }
        }
    }
    let kept = writes.iter().zip(there).filter_map(|(write, there)| {
        let part = match there {
            There::None => return None,
            There::Whole => Range::new(0, write.data.len()),
            There::Torn => run(write, rules, &mut random)?,
        };
        Some((write.at + part.start, write.data.slice(part.start, part.len)))
    });
    kept.collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    None,
    Whole,
    Torn,
}

/// A run of the sectors of a write, not all of them; `None`: none.
fn run(write: &Write, rules: Rules, random: &mut Random) -> Option<Range> {
    if !can_be_torn(write, rules) {
        return (random.below(2) == 0).then(|| Range::new(0, write.data.len()));
    }
    let all = sectors(write, rules.sector);
    let first = write.at / rules.sector;
    // A beginning, an end, or a middle.
    let (from, to) = match random.below(3) {
        0 => (0, 1 + random.below(all - 1)),
        1 => (1 + random.below(all - 1), all),
        _ => {
            let from = random.below(all);
            (from, from + 1 + random.below(all - from))
        }
    };
    let start = ((first + from) * rules.sector).max(write.at);
    let end = ((first + to) * rules.sector).min(write.at + write.data.len());
    Some(Range::new(start - write.at, end - start))
}

/// Numbers that are the same for the same seed and state, everywhere and for ever.
struct Random(u64);

impl Random {
    fn new(seed: u64, state: u64) -> Random {
        let mut random = Random(seed ^ state.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        random.below(1);
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const RULES: Rules = Rules { sector: 512, most: 64, seed: 1 };

    fn writes(list: &[(u64, u64, bool)]) -> Vec<Write> {
        let write = |(n, (at, len, fua)): (usize, &(u64, u64, bool))| Write {
            at: *at,
            data: Data::copy_from(&vec![n as u8 + 1; *len as usize]),
            fua: *fua,
        };
        list.iter().enumerate().map(write).collect()
    }

    fn shown(state: &[(u64, Data)]) -> Vec<(u64, u64, u8)> {
        state.iter().map(|(at, data)| (*at, data.len(), data.to_vec()[0])).collect()
    }

    #[test]
    fn few_writes_have_all_their_sets() {
        let writes = writes(&[(0, 512, false), (512, 512, false), (0, 512, false)]);
        assert_eq!(count(&writes, RULES), 8);
        let states: HashSet<_> = (0..8).map(|n| shown(&state(&writes, n, RULES))).collect();
        assert_eq!(states.len(), 8);
        assert_eq!(state(&writes, 0, RULES).len(), 0);
        assert_eq!(state(&writes, 1, RULES).len(), 3);
    }

    #[test]
    fn nothing_is_later_than_a_stable_write_that_is_not_there() {
        let list: Vec<_> = (0..40).map(|n| (n * 4096, 4096, n % 5 == 0)).collect();
        for few in [true, false] {
            let writes = writes(if few { &list[..6] } else { &list });
            for number in 0..2000 {
                let state = shown(&state(&writes, number, RULES));
                let Some((_, _, last)) = state.last() else { continue };
                for (n, write) in writes.iter().enumerate().take(usize::from(*last) - 1) {
                    let whole = (write.at, 4096, n as u8 + 1);
                    assert!(!write.fua || state.contains(&whole), "{number}: {state:?}");
                }
            }
        }
    }

    #[test]
    fn writes_are_torn_at_sectors_only_and_not_when_sectors_are_large() {
        let writes = writes(&[(100, 5000, false), (8192, 512, false), (65536, 65536, false)]);
        let mut torn = HashSet::new();
        for number in 0..1000 {
            for (at, len, n) in shown(&state(&writes, number, Rules { most: 4, ..RULES })) {
                let write = &writes[usize::from(n) - 1];
                let end = write.at + write.data.len();
                assert!(at == write.at || at % 512 == 0);
                assert!(at + len == end || (at + len) % 512 == 0);
                if len < write.data.len() {
                    torn.insert(n);
                }
            }
            let whole = state(&writes, number, Rules { sector: 0, ..RULES });
            assert!(whole.iter().all(|(_, data)| [5000, 512, 65536].contains(&data.len())));
        }
        assert_eq!(torn, HashSet::from([1, 3]));
    }

    #[test]
    fn states_are_the_same_every_time() {
        let writes = writes(&(0..100).map(|n| (n * 512, 2048, false)).collect::<Vec<_>>());
        let of = |seed| -> Vec<_> {
            (0..64).map(|n| shown(&state(&writes, n, Rules { seed, ..RULES }))).collect()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(1).iter().collect::<HashSet<_>>().len() > 50);
        assert_eq!(count(&writes, RULES), 64);
    }
}
