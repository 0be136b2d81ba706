//! `retry`: a disk that fails is opened again.

mod reopening;

use disk::{Backend, Client, Disk, Filter, Io, Result};
use params::{Delay, Params};
use reopening::{Asker, Reopening};
use std::{sync::Arc, time::Duration};

/// Open a disk again when a request fails, and make the request again.
#[derive(Params)]
pub(crate) struct Retry {
    /// How often a request is made again.
    #[param(default = "5")]
    retries: u32,
    /// How long to wait before the disk is opened again.
    #[param(default = "2")]
    retry_delay: Delay,
    /// Whether each wait is twice as long as the one before.
    #[param(default = "yes")]
    retry_exponential: bool,
    /// Whether the disk is opened for reading only after the first failure.
    #[param(default = "no")]
    retry_readonly: bool,
}

impl Filter for Retry {
    const NAME: &'static str = "retry";
    const MANUAL: &'static str = include_str!("retry.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Retrying { params: Arc::new(self), next })
    }
}

impl Retry {
    /// How long to wait before attempt `number`, from 1; `None`: there is none.
    fn pause(&self, number: u32) -> Option<Duration> {
        if number > self.retries {
            return None;
        }
        let doubled = if self.retry_exponential { number - 1 } else { 0 };
        // Nobody waits for longer than a day.
        let pause = self.retry_delay.duration().checked_mul(1u32.checked_shl(doubled).unwrap_or(u32::MAX));
        Some(pause.unwrap_or(Duration::MAX).min(Duration::from_secs(86_400)))
    }
}

struct Retrying {
    params: Arc<Retry>,
    next: Arc<dyn Backend>,
}

impl Backend for Retrying {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(async move {
            let asker = Asker::new(client, self.next.clone());
            let mut number = 0;
            let disk = loop {
                match asker.open(false).await {
                    Ok(disk) => break disk,
                    Err(e) => {
                        number += 1;
                        let Some(pause) = self.params.pause(number) else { return Err(e) };
                        tracing::warn!(target: "diskpipe", "retry: opening the disk in {pause:?} again: {e}");
                        reactor::sleep(pause).await;
                    }
                }
            };
            Ok(Arc::new(Reopening::new(self.params.clone(), asker, disk)) as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests;
