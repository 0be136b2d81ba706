//! Who may change which blocks now: many may write whole ones, but only one at a time reads, changes and writes back a
//! part of a block. Blocks share a fixed number of locks, so that those who change others seldom wait.

use async_lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::Range;

/// Each of the locks is that of every 64th block.
const LOCKS: u64 = 64;

pub(super) struct Turns([RwLock<()>; LOCKS as usize]);

/// Held during a change.
#[derive(Default)]
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] Vec<Held<'a>>);

enum Held<'a> {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
}

impl Default for Turns {
    fn default() -> Turns {
        Turns(std::array::from_fn(|_| RwLock::new(())))
    }
}

impl Turns {
    /// The turn of who changes these blocks (at least one), of the first and of the last only a part where
    /// `parts` says so.
    pub(super) async fn of(&self, blocks: Range<u64>, parts: (bool, bool)) -> Turn<'_> {
        let alone = [(parts.0, blocks.start), (parts.1, blocks.end - 1)];
        let is_alone = |lock: u64| alone.iter().any(|(part, block)| *part && block % LOCKS == lock);
        let mut held = Vec::with_capacity((blocks.end - blocks.start).min(LOCKS) as usize);
        // Everybody takes them in the same order, so that no two wait for each other.
        for lock in locks(blocks) {
            let turn = &self.0[lock as usize];
            held.push(if is_alone(lock) {
                Held::Alone(turn.write().await)
            } else {
                Held::Shared(turn.read().await)
            });
        }
        Turn(held)
    }
}

/// The locks of these blocks, in ascending order.
fn locks(blocks: Range<u64>) -> impl Iterator<Item = u64> {
    let (first, count) = (blocks.start % LOCKS, (blocks.end - blocks.start).min(LOCKS));
    let wrapped = (first + count).saturating_sub(LOCKS);
    (0..wrapped).chain(first..(first + count).min(LOCKS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn locks_are_those_of_the_blocks_and_each_comes_once() {
        for (blocks, expected) in [
            (0..1, vec![0]),
            (63..65, vec![0, 63]),
            (130..133, vec![2, 3, 4]),
            (100..164, (0..64).collect()),
            (5..500, (0..64).collect()),
            (1..64, (1..64).collect()),
            (u64::MAX - 1..u64::MAX, vec![62]),
        ] {
            assert_eq!(locks(blocks.clone()).collect::<Vec<_>>(), expected, "{blocks:?}");
        }
    }

    #[test]
    fn only_who_changes_the_same_block_in_part_waits() {
        let turns = Turns::default();
        let now = |blocks, parts| {
            let mut turn = pin!(turns.of(blocks, parts));
            match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            }
        };
        let part = now(7..9, (true, false)).unwrap();
        assert!(now(7..8, (false, false)).is_none());
        assert!(now(0..8, (true, false)).is_none());
        assert!(now(8..9, (true, true)).is_none());
        let others = [now(6..7, (true, true)), now(30..31, (true, true)), now(8..20, (false, true))];
        assert!(others.iter().all(Option::is_some));
        drop(part);
        assert!(now(7..8, (true, true)).is_some());
    }
}
