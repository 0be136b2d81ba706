//! `multi-conn`: what one connection wrote and flushed, others read, also over a disk that does not promise that.

use disk::{
    Around, Backend, Client, Disk, Error, Facts, Filter, Io, Result, ThreadModel,
    shapes::{Op, OpKind, around::EveryRequest},
};
use params::{Choice, Params};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
};

/// Let clients use several connections at once.
#[derive(Params)]
pub(crate) struct MultiConn {
    /// `auto`, as `plugin` if the disk below allows it and as `emulate` otherwise (as `disable` where only one client
    /// is served at a time); `emulate`, a flush of one connection flushes all; `plugin`, what the disk below says;
    /// `disable`, it is not offered; `unsafe`, it is offered, **whether it is true or not**.
    #[param(default = "auto")]
    multi_conn_mode: Mode,
    /// Which flushes are passed on: `connection`, those of connections that wrote, or that read, since their last;
    /// `fast`, only if any connection wrote since the last flush of any; `off`, all.
    #[param(default = "connection")]
    multi_conn_track_dirty: Track,
    /// Connections to different exports have nothing to do with each other.
    #[param(default = "false")]
    multi_conn_exportname: bool,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Auto,
    Emulate,
    Plugin,
    Disable,
    Unsafe,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum Track {
    #[choice(alias = "conn")]
    Connection,
    Fast,
    Off,
}

impl Filter for MultiConn {
    const NAME: &'static str = "multi-conn";
    const MANUAL: &'static str = include_str!("multi_conn.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(Joining { params: self, groups: Mutex::default(), next })
    }
}

struct Joining {
    params: MultiConn,
    /// By export, or all under the empty name. Groups live as long as somebody is in them.
    groups: Mutex<HashMap<String, Weak<Group>>>,
    next: Arc<dyn Backend>,
}

impl Joining {
    fn group(&self, export: &str) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        groups.retain(|_, group| group.strong_count() > 0);
        let name = if self.params.multi_conn_exportname { export } else { "" };
        if let Some(group) = groups.get(name).and_then(Weak::upgrade) {
            return group;
        }
        let group = Arc::new(Group::default());
        groups.insert(name.to_owned(), Arc::downgrade(&group));
        group
    }

    fn over(&self, disk: Arc<dyn Disk>, export: &str) -> Result<Arc<dyn Disk>> {
        let below = disk.facts();
        let mode = match self.params.multi_conn_mode {
            Mode::Auto if self.next.thread_model() == ThreadModel::SerializeConnections => Mode::Disable,
            Mode::Auto if below.multi_conn || !below.write => Mode::Plugin,
            // There is nothing that could be passed on to the others.
            Mode::Auto if !below.flush => Mode::Disable,
            Mode::Auto => Mode::Emulate,
            Mode::Emulate if below.write && !below.flush => {
                return Err(Error::invalid("multi-conn-mode=emulate: the disk below cannot flush"));
            }
            mode => mode,
        };
        let multi_conn = match mode {
            Mode::Emulate | Mode::Unsafe => true,
            Mode::Disable => false,
            Mode::Plugin | Mode::Auto => below.multi_conn,
        };
        let facts = Facts { multi_conn, ..below.clone() };
        let group = self.group(export);
        let me = Arc::new(Member { disk: disk.clone(), touched: AtomicU8::new(0) });
        lock(&group.members).push(Arc::downgrade(&me));
        let all = mode == Mode::Emulate;
        let joined = Joined { track: self.params.multi_conn_track_dirty, all, me, group };
        Ok(Arc::new(Around::with_facts(joined, facts, disk)))
    }
}

impl Backend for Joining {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| self.over(disk, client.export))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that must see each other's writes.
#[derive(Default)]
struct Group {
    /// Locked when one comes or goes, and while a flush looks who is there.
    members: Mutex<Vec<Weak<Member>>>,
    /// Somebody wrote since the last flush.
    written: AtomicBool,
}

struct Member {
    disk: Arc<dyn Disk>,
    /// [`WROTE`] and [`READ`] since its last flush.
    touched: AtomicU8,
}

const WROTE: u8 = 1;
/// It may keep what it read, although others write it.
const READ: u8 = 2;

struct Joined {
    track: Track,
    /// A flush is one of all members.
    all: bool,
    me: Arc<Member>,
    group: Arc<Group>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        lock(&self.group.members).retain(|member| !std::ptr::eq(member.as_ptr(), &raw const *self.me));
    }
}

/// Marks its connection as one that wrote, when it is dropped.
struct Mark<'a>(&'a Joined);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.0.touched(WROTE);
    }
}

impl Joined {
    fn touched(&self, what: u8) {
        if self.me.touched.load(SeqCst) & what == 0 {
            self.me.touched.fetch_or(what, SeqCst);
        }
        if what == WROTE && !self.group.written.load(SeqCst) {
            self.group.written.store(true, SeqCst);
        }
    }

    /// Flushes a member, if it has something to flush. When that fails, it still has.
    async fn flush_one(&self, member: &Member, clean: bool) -> Result<()> {
        let touched = member.touched.swap(0, SeqCst);
        let needed = match self.track {
            Track::Off => true,
            Track::Fast => !clean,
            Track::Connection => {
                touched & WROTE != 0 || (touched & READ != 0 && !member.disk.facts().multi_conn)
            }
        };
        if needed && let Err(e) = member.disk.flush().await {
            member.touched.fetch_or(touched, SeqCst);
            return Err(e);
        }
        Ok(())
    }

    /// Flushes all others.
    async fn flush_others(&self, clean: bool) -> Result<()> {
        let others: Vec<Arc<Member>> = lock(&self.group.members).iter().filter_map(Weak::upgrade).collect();
        for member in others.iter().filter(|member| !Arc::ptr_eq(member, &self.me)) {
            if member.disk.facts().flush {
                self.flush_one(member, clean).await?;
            }
        }
        Ok(())
    }

    async fn flush_all(&self) -> Result<()> {
        let clean = !self.group.written.swap(false, SeqCst);
        let flushed = async {
            self.flush_one(&self.me, clean).await?;
            if self.all { self.flush_others(clean).await } else { Ok(()) }
        };
        flushed.await.inspect_err(|_| {
            if !clean {
                self.group.written.store(true, SeqCst);
            }
        })
    }
}

impl EveryRequest for Joined {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        match op.kind {
            OpKind::Read => call().inspect(|_| self.touched(READ)),
            OpKind::Write | OpKind::Zero { .. } | OpKind::Trim => {
                // Marked when it is done, or dropped: a flush that comes in between does not cover it.
                let mark = Mark(self);
                let done = call().inspect(move |_| drop(mark));
                if !(op.fua && self.all) {
                    return done;
                }
                // Others must not go on reading what they have kept.
                Io::later(async move {
                    let answer = done.await?;
                    self.flush_others(false).await?;
                    Ok(answer)
                })
            }
            _ => call(),
        }
    }

    fn flush<'a>(&'a self, _: Op, _: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        Io::later(self.flush_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};
    use disk::{Data, Range, WriteFlags};

    const R: Range = Range::new(0, 512);

    fn memory(multi_conn: bool) -> Arc<Memory> {
        Memory::with(vec![0; 1024], Facts { multi_conn, fua: true, ..Facts::writable(1024) })
    }

    /// How many flushes come to the disks below when one of three connections that have read writes, and then each
    /// flushes.
    fn flushes(params: &[&str], multi_conn: bool) -> (bool, [usize; 3]) {
        let memory = memory(multi_conn);
        let layer = layer::<MultiConn>(params, &memory).unwrap();
        let disks: Vec<_> =
            ["a", "a", "b"].map(|name| layer.open(&Client::local(name)).wait().unwrap()).into();
        disks.iter().for_each(|disk| drop(disk.read(R).wait().unwrap()));
        disks[0].write(0, Data::zeroes(512), WriteFlags::default()).wait().unwrap();
        memory.asked();
        let count = [0, 1, 2].map(|n: usize| {
            disks[n].flush().wait().unwrap();
            memory.asked().len()
        });
        (disks[0].facts().multi_conn, count)
    }

    #[test]
    fn modes_flush_and_promise_what_the_manual_says() {
        assert_eq!(flushes(&[], true), (true, [1, 0, 0]));
        assert_eq!(flushes(&[], false), (true, [3, 0, 0]));
        assert_eq!(
            flushes(&["multi-conn-mode=emulate", "multi-conn-track-dirty=off"], true),
            (true, [3, 3, 3])
        );
        assert_eq!(
            flushes(&["multi-conn-mode=emulate", "multi-conn-track-dirty=fast"], false),
            (true, [3, 0, 0])
        );
        assert_eq!(
            flushes(&["multi-conn-mode=emulate", "multi-conn-exportname=true"], false),
            (true, [2, 0, 1])
        );
        assert_eq!(
            flushes(&["multi-conn-mode=plugin", "multi-conn-track-dirty=fast"], false),
            (false, [1, 0, 0])
        );
        assert_eq!(
            flushes(&["multi-conn-mode=disable", "multi-conn-track-dirty=off"], true),
            (false, [1, 1, 1])
        );
        assert_eq!(flushes(&["multi-conn-mode=unsafe"], false), (true, [1, 1, 1]));
    }

    #[test]
    fn a_stable_write_of_one_flushes_the_others() {
        let memory = memory(false);
        let layer = layer::<MultiConn>(&[], &memory).unwrap();
        let [one, two] = [1, 2].map(|_| layer.open(&Client::local("")).wait().unwrap());
        drop(two.read(R).wait().unwrap());
        one.write(0, Data::zeroes(512), WriteFlags { fua: true }).wait().unwrap();
        assert_eq!(memory.asked(), ["read 0 512", "write 0 512 fua", "flush"]);
        drop(two);
        one.flush().wait().unwrap();
        assert_eq!(memory.asked(), ["flush"]);
    }

    #[test]
    fn emulation_over_what_cannot_flush_is_refused() {
        let memory =
            Memory::with(vec![0; 512], Facts { flush: false, multi_conn: false, ..Facts::writable(512) });
        let refused = layer::<MultiConn>(&["multi-conn-mode=emulate"], &memory).unwrap();
        assert!(refused.open(&Client::local("")).wait().is_err());
        let auto = layer::<MultiConn>(&[], &memory).unwrap();
        assert!(!auto.open(&Client::local("")).wait().unwrap().facts().multi_conn);
    }
}
