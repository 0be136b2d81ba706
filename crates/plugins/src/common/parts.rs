//! The parts of a request, several at once; and bytes at addresses that devices take.

use disk::{Data, Range, Result};
use reactor::InFlight;
use std::pin::Pin;

/// So many parts of one request are under way at once.
const PARTS: usize = 16;

/// What is done with one part.
pub(crate) type Part<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Does the parts of a range that lie between multiples of `step`, and gives what came of each, in their order.
pub(crate) async fn each_part<'a, T: Send + 'a>(
    range: Range,
    step: u64,
    part: impl Fn(Range) -> Part<'a, T>,
) -> Result<Vec<T>> {
    let mut parts = range.split_at_multiples(step).enumerate();
    let (mut under_way, mut done, mut failed) = (InFlight::new(), Vec::new(), None);
    loop {
        let room = if failed.is_none() { PARTS - under_way.len() } else { 0 };
        let more: Vec<(usize, Range)> = parts.by_ref().take(room).collect();
        // What was pushed last is polled first, and the device shall see them in their order.
        for (i, range) in more.into_iter().rev() {
            let part = part(range);
            under_way.push(Box::pin(async move { Ok::<_, disk::Error>((i, part.await?)) }));
        }
        match under_way.next().await {
            Some(Ok(part)) => done.push(part),
            // The others are awaited all the same: what was answered is over, and somebody may write there again.
            Some(Err(e)) => failed = failed.or(Some(e)),
            None => break,
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    done.sort_unstable_by_key(|(i, _)| *i);
    Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Whether a range is one part.
pub(crate) fn is_one_part(range: Range, step: u64) -> bool {
    range.start / step == (range.end() - 1) / step
}

/// The same bytes in one piece of memory that begins at a multiple of `alignment` (at most a page).
pub(crate) fn aligned(data: Data, alignment: usize) -> Data {
    match data.as_bytes() {
        Some(bytes) if bytes.as_ptr().addr().is_multiple_of(alignment) => data,
        // A buffer of its own begins with a page.
        _ => Data::fill(data.len() as usize, |into| data.copy_to(into)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn parts_come_back_in_order_however_long_each_takes() {
        let range = Range::new(3, 1000);
        let part = |part: Range| -> Part<'static, Range> {
            Box::pin(async move {
                for _ in 0..part.start * 7 % 5 {
                    reactor::yield_now().await;
                }
                Ok(part)
            })
        };
        let done = reactor::block_on(each_part(range, 8, part)).unwrap();
        assert_eq!(done, range.split_at_multiples(8).collect::<Vec<_>>());
        assert!(
            !is_one_part(range, 8) && is_one_part(Range::new(8, 8), 8) && !is_one_part(Range::new(8, 9), 8)
        );
    }

    #[test]
    fn a_failure_is_told_when_no_part_is_under_way_any_more() {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let part = |part: Range| -> Part<'_, ()> {
            begun.fetch_add(1, Relaxed);
            let ended = &ended;
            Box::pin(async move {
                for _ in 0..part.start {
                    reactor::yield_now().await;
                }
                ended.fetch_add(1, Relaxed);
                if part.start == 0 { Err(disk::Error::io("the first one fails")) } else { Ok(()) }
            })
        };
        let failed = reactor::block_on(each_part(Range::new(0, 1000), 8, part)).unwrap_err();
        assert_eq!(failed.to_string(), "the first one fails");
        assert_eq!((begun.into_inner(), ended.into_inner()), (PARTS, PARTS));
    }

    #[test]
    fn bytes_are_moved_only_where_they_must_be() {
        let data = Data::copy_from(&[7; 9000]);
        let at = |data: &Data| data.as_bytes().unwrap().as_ptr();
        assert_eq!(at(&aligned(data.clone(), 512)), at(&data));
        let odd = aligned(data.slice(1, 5000), 512);
        assert!(at(&odd).addr().is_multiple_of(512) && odd.to_vec() == [7; 5000]);
        assert_eq!(aligned(Data::zeroes(3), 1).as_bytes(), Some(&[0; 3][..]));
    }
}
