//! `retry-request`: a request that fails is made again.

use disk::{
    Again, Backend, Client, Disk, Errno, Error, Filter, Io, Result,
    shapes::{Op, OpKind, again::EveryAttempt},
};
use params::{Delay, Params};
use std::{sync::Arc, time::Duration};

/// Make single requests again when they fail.
#[derive(Params)]
pub(crate) struct RetryRequest {
    /// How often a request is made again.
    #[param(default = "2")]
    retry_request_retries: u32,
    /// How long to wait before it is made again.
    #[param(default = "2")]
    retry_request_delay: Delay,
    /// Whether opening a disk is tried again, too.
    #[param(default = "true")]
    retry_request_open: bool,
}

impl Filter for RetryRequest {
    const NAME: &'static str = "retry-request";
    const MANUAL: &'static str = include_str!("retry_request.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let patience =
            Patience { retries: self.retry_request_retries, delay: self.retry_request_delay.duration() };
        Ok(Retrying { patience, open: self.retry_request_open, next })
    }
}

struct Retrying {
    patience: Patience,
    open: bool,
    next: Arc<dyn Backend>,
}

impl Backend for Retrying {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let wrap = |disk| Ok(Arc::new(Again::new(self.patience, disk)) as Arc<dyn Disk>);
        if !self.open {
            return self.next.open(client).map(wrap);
        }
        self.patience.again("opening the disk".into(), |_| true, || self.next.open(client)).map(wrap)
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[derive(Clone, Copy)]
struct Patience {
    retries: u32,
    delay: Duration,
}

impl Patience {
    /// Calls until it succeeds, fails for good, or patience is at its end.
    fn again<'a, T: Send + 'a>(
        &'a self,
        what: String,
        may_pass: impl Fn(&Error) -> bool + Send + 'a,
        call: impl Fn() -> Io<'a, T> + Send + Sync + 'a,
    ) -> Io<'a, T> {
        let first = match call() {
            Io::Ready(Ok(answer)) => return Io::ok(answer),
            first => first,
        };
        Io::later(async move {
            let mut outcome = first.await;
            for _ in 0..self.retries {
                match &outcome {
                    Err(e) if may_pass(e) => {
                        tracing::debug!(target: "diskpipe", "retry-request: {what} failed and is tried again: {e}");
                        reactor::sleep(self.delay).await;
                    }
                    _ => break,
                }
                outcome = call().await;
            }
            outcome
        })
    }
}

impl EveryAttempt for Patience {
    fn attempt<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        call: impl Fn() -> Io<'a, T> + Send + Sync + 'a,
    ) -> Io<'a, T> {
        // That zeroing would be slow is an answer, not a failure.
        let answers = matches!(op.kind, OpKind::Zero { fast: true, .. });
        let may_pass = move |e: &Error| !(answers && e.errno() == Errno::NOTSUP);
        match call() {
            Io::Ready(Ok(answer)) => Io::ok(answer),
            first => {
                // The description is needed only now.
                let rest = std::sync::Mutex::new(Some(first));
                let next = move || {
                    let first = rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                    first.unwrap_or_else(&call)
                };
                self.again(format!("{:?} of {}", op.kind, op.range), may_pass, next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        common::testing::{Memory, layer, noise, open, over},
        error,
    };
    use disk::{Data, Facts, Range, WriteFlags, ZeroFlags};
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// Fails so many times, then works.
    struct Flaky {
        facts: Facts,
        failures: AtomicU32,
        asked: AtomicU32,
    }

    impl Disk for Flaky {
        fn facts(&self) -> &Facts {
            &self.facts
        }
        fn read(&self, r: Range) -> Io<'_, Data> {
            self.asked.fetch_add(1, SeqCst);
            match self.failures.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
                Ok(_) => Errno::IO.into(),
                Err(_) => Io::ok(Data::zeroes(r.len)),
            }
        }
        fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
            self.asked.fetch_add(1, SeqCst);
            Errno::NOTSUP.into()
        }
    }

    fn tried(retries: u32, failures: u32) -> (bool, u32) {
        let facts = Facts { zero: true, fast_zero: true, ..Facts::writable(512) };
        let flaky = Arc::new(Flaky { facts, failures: failures.into(), asked: 0.into() });
        let patience = Patience { retries, delay: Duration::from_millis(1) };
        let disk = Again::new(patience, flaky.clone());
        (disk.read(Range::new(0, 512)).wait().is_ok(), flaky.asked.load(SeqCst))
    }

    #[test]
    fn a_request_is_made_until_it_succeeds_or_patience_ends() {
        assert_eq!(tried(2, 0), (true, 1));
        assert_eq!(tried(2, 2), (true, 3));
        assert_eq!(tried(2, 3), (false, 3));
        assert_eq!(tried(0, 1), (false, 1));
    }

    #[test]
    fn a_slow_zero_is_not_tried_again() {
        let facts = Facts { zero: true, fast_zero: true, ..Facts::writable(512) };
        let flaky = Arc::new(Flaky { facts, failures: 0.into(), asked: 0.into() });
        let disk = Again::new(Patience { retries: 5, delay: Duration::from_secs(100) }, flaky.clone());
        let fast = ZeroFlags { fast: true, ..ZeroFlags::default() };
        assert_eq!(disk.zero(Range::new(0, 512), fast).wait().unwrap_err().errno(), Errno::NOTSUP);
        assert_eq!(flaky.asked.load(SeqCst), 1);
    }

    #[test]
    fn over_a_disk_that_often_fails_everything_succeeds() {
        let memory = Memory::new(vec![0; 4096]);
        let failing = layer::<error::Error>(&["error-rate=50%"], &memory).unwrap();
        let disk = open(
            &over::<RetryRequest>(&["retry-request-retries=100", "retry-request-delay=0"], failing).unwrap(),
        );
        let bytes = noise(1, 4096);
        disk.write(0, Data::copy_from(&bytes), WriteFlags::default()).wait().unwrap();
        assert_eq!(disk.read(Range::new(0, 4096)).wait().unwrap().to_vec(), bytes);
    }
}
