//! Several backends behind one, each with a name of its own; the set can be replaced while clients are served.

use crate::{
    Backend, Client, Disk, Export, Facts, Io, Wish,
    error::{Errno, Error, Result},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A backend that is told its end when nobody uses it any more: neither the set of exports nor a connection.
pub struct Member(Arc<dyn Backend>);

impl Member {
    /// The backend is held to its thread model.
    pub fn new(backend: Arc<dyn Backend>) -> Arc<Member> {
        Arc::new(Member(crate::serialized::backend(backend)))
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

/// One export of the set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As clients name it.
    pub name: String,
    /// For people; `None` leaves what the backend says.
    pub description: Option<String>,
    /// Clients may only read it.
    pub read_only: bool,
    /// Lists show it.
    pub listed: bool,
    /// The name that the backend is asked for; `None`: the same.
    pub opens: Option<String>,
    /// What opens it; several entries may share one.
    pub member: Arc<Member>,
}

/// What clients find at one moment.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Every export, in the order of lists.
    pub entries: Vec<Entry>,
    /// The export behind the empty name.
    pub default: Option<String>,
}

/// A connection has asked a member to be let in: the member must be told when it has gone.
struct Visit {
    member: Arc<Member>,
    admitted: bool,
}

/// A backend of several exports, each opened by a backend of its own.
#[derive(Default)]
pub struct Exports {
    table: Mutex<Arc<Table>>,
    /// By number.
    connections: Mutex<HashMap<u64, Vec<Visit>>>,
    /// For members that come later.
    end: Mutex<Wish>,
}

impl Exports {
    /// A set that is made ready with the server.
    pub fn new(table: Table) -> Self {
        Exports { table: Mutex::new(Arc::new(table)), ..Exports::default() }
    }

    /// Connections from now on find this table; earlier ones keep what they have open. Members that are new are made
    /// ready first.
    ///
    /// # Errors
    /// A sentence that names the export whose backend cannot be made ready; then everything stays as it was.
    pub fn replace(&self, table: Table) -> Result<()> {
        let before = self.table();
        let is_new =
            |entry: &&Entry| !before.entries.iter().any(|old| Arc::ptr_eq(&old.member, &entry.member));
        for entry in table.entries.iter().filter(is_new) {
            entry.member.backend().hosted(&lock(&self.end));
            let ready = entry.member.backend().get_ready().and_then(|()| entry.member.backend().after_fork());
            ready.map_err(|e| named(e, entry))?;
        }
        *lock(&self.table) = Arc::new(table);
        Ok(())
    }

    /// What clients find now.
    pub fn table(&self) -> Arc<Table> {
        lock(&self.table).clone()
    }

    /// Has the member decide about a connection that it has not seen yet.
    async fn admit(&self, client: &Client<'_>, member: &Arc<Member>) -> Result<()> {
        let seen = |connections: &HashMap<u64, Vec<Visit>>| {
            let visits = connections.get(&client.connection)?;
            visits.iter().find(|visit| Arc::ptr_eq(&visit.member, member)).map(|visit| visit.admitted)
        };
        let before = seen(&lock(&self.connections));
        match before {
            Some(true) => Ok(()),
            Some(false) => Err(Error::new(Errno::PERM, "the connection was refused before")),
            None => {
                let decided = member.backend().preconnect(client).await;
                let visit = Visit { member: member.clone(), admitted: decided.is_ok() };
                lock(&self.connections).entry(client.connection).or_default().push(visit);
                decided
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named(e: Error, entry: &Entry) -> Error {
    e.context(format!("export {:?}", entry.name))
}

impl Backend for Exports {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let table = self.table();
        let Some(entry) = table.entries.iter().find(|entry| entry.name == client.export) else {
            return Error::new(Errno::NOENT, format!("there is no export {:?}", client.export)).into();
        };
        let entry = entry.clone();
        Io::later(async move {
            let backend = entry.member.backend();
            self.admit(client, &entry.member).await?;
            let mut asked = entry.opens.clone().unwrap_or_else(|| entry.name.clone());
            let read_only = client.read_only || entry.read_only;
            if asked.is_empty() {
                let client = Client { export: "", read_only, ..client.clone() };
                asked = backend.default_export(&client).await?.unwrap_or_default();
            }
            let client = Client { export: &asked, read_only, ..client.clone() };
            let disk = backend.open(&client).await?;
            let mut facts = disk.facts().clone();
            if entry.read_only {
                facts = facts.without_write();
            }
            if let Some(description) = &entry.description {
                facts.description = Some(description.as_str().into());
            }
            Ok(Arc::new(Named { facts, disk, _member: entry.member.clone() }) as Arc<dyn Disk>)
        })
    }

    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        let table = self.table();
        let listed = table.entries.iter().filter(|entry| entry.listed);
        let export =
            |entry: &Entry| Export { name: entry.name.clone(), description: entry.description.clone() };
        Io::ok(listed.map(export).collect())
    }

    fn default_export<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Option<String>> {
        Io::ok(self.table().default.clone())
    }

    fn hosted(&self, end: &Wish) {
        *lock(&self.end) = end.clone();
        self.table().entries.iter().for_each(|entry| entry.member.backend().hosted(end));
    }

    fn get_ready(&self) -> Result<()> {
        let ready = |entry: &Entry| entry.member.backend().get_ready().map_err(|e| named(e, entry));
        self.table().entries.iter().try_for_each(ready)
    }

    fn after_fork(&self) -> Result<()> {
        let begin = |entry: &Entry| entry.member.backend().after_fork().map_err(|e| named(e, entry));
        self.table().entries.iter().try_for_each(begin)
    }

    fn disconnected(&self, connection: u64) {
        let visits = lock(&self.connections).remove(&connection);
        visits.into_iter().flatten().for_each(|visit| visit.member.backend().disconnected(connection));
    }

    fn finish(&self) {
        // Each member is told when the last connection that uses it has gone.
        *lock(&self.table) = Arc::default();
    }
}

/// An export's disk, which keeps its backend from ending.
struct Named {
    facts: Facts,
    disk: Arc<dyn Disk>,
    _member: Arc<Member>,
}

impl Disk for Named {
    crate::forward!(disk: next, read, write, zero, trim, flush, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Range};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Counts what it is told: made ready, connections that came and went, its end.
    #[derive(Default)]
    struct Told([AtomicUsize; 4]);
    impl Told {
        fn counts(&self) -> [usize; 4] {
            std::array::from_fn(|i| self.0[i].load(SeqCst))
        }
    }
    struct Of(u64, Arc<Told>);
    impl Backend for Of {
        fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
            let description = Some(client.export.into());
            Io::ok(Arc::new(Zeroes(Facts { description, ..Facts::writable(self.0) })))
        }
        fn get_ready(&self) -> Result<()> {
            self.1.0[0].fetch_add(1, SeqCst);
            if self.0 == 0 { Err(Error::io("nothing to serve")) } else { Ok(()) }
        }
        fn preconnect<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, ()> {
            self.1.0[1].fetch_add(1, SeqCst);
            Io::ok(())
        }
        fn disconnected(&self, _: u64) {
            self.1.0[2].fetch_add(1, SeqCst);
        }
        fn finish(&self) {
            self.1.0[3].fetch_add(1, SeqCst);
        }
    }
    struct Zeroes(Facts);
    impl Disk for Zeroes {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, r: Range) -> Io<'_, Data> {
            Io::ok(Data::zeroes(r.len))
        }
    }

    fn entry(name: &str, size: u64) -> (Entry, Arc<Told>) {
        let told = Arc::new(Told::default());
        let member = Member::new(Arc::new(Of(size, told.clone())));
        let name = name.to_owned();
        (Entry { name, description: None, read_only: false, listed: true, opens: None, member }, told)
    }

    fn open(exports: &Exports, connection: u64, export: &str) -> Result<Arc<dyn Disk>> {
        exports.open(&Client { connection, export, ..Client::default() }).wait()
    }

    #[test]
    fn each_name_opens_its_own_backend() {
        let (a, _) = entry("a", 512);
        let (b, _) = entry("b", 1024);
        let b = Entry {
            description: Some("two".into()),
            read_only: true,
            listed: false,
            opens: Some("inner".into()),
            ..b
        };
        let exports = Exports::new(Table { entries: vec![a, b], default: Some("b".into()) });
        assert_eq!(open(&exports, 1, "a").unwrap().facts().description.as_deref(), Some("a"));
        let b = open(&exports, 1, "b").unwrap();
        assert_eq!((b.facts().size, b.facts().write), (1024, false));
        assert_eq!(b.facts().description.as_deref(), Some("two"));
        let error = open(&exports, 1, "c").err().unwrap();
        assert_eq!(error.to_string(), "there is no export \"c\"");
        let client = Client::default();
        assert_eq!(exports.default_export(&client).wait().unwrap().as_deref(), Some("b"));
        let names: Vec<_> = exports.exports(&client).wait().unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn a_connection_keeps_what_it_has_open_when_the_table_changes() {
        let (old, told) = entry("x", 512);
        let exports = Exports::new(Table { entries: vec![old], default: None });
        exports.get_ready().unwrap();
        let disk = open(&exports, 1, "x").unwrap();
        drop(open(&exports, 1, "x").unwrap());
        let (new, _) = entry("x", 1024);
        exports.replace(Table { entries: vec![new], default: None }).unwrap();
        assert_eq!(open(&exports, 2, "x").unwrap().facts().size, 1024);
        assert_eq!(disk.read(Range::new(0, 512)).wait().unwrap().len(), 512);
        assert_eq!(told.counts(), [1, 1, 0, 0]);
        drop(disk);
        exports.disconnected(1);
        assert_eq!(told.counts(), [1, 1, 1, 1]);
    }

    #[test]
    fn a_table_that_cannot_be_made_ready_changes_nothing() {
        let (good, told) = entry("good", 512);
        let exports = Exports::new(Table { entries: vec![good.clone()], default: None });
        exports.get_ready().unwrap();
        let (bad, _) = entry("bad", 0);
        let error = exports.replace(Table { entries: vec![good.clone(), bad], default: None }).unwrap_err();
        assert_eq!(error.to_string(), "export \"bad\": nothing to serve");
        assert!(open(&exports, 1, "good").is_ok() && open(&exports, 1, "bad").is_err());
        exports.replace(Table { entries: vec![good], default: None }).unwrap();
        assert_eq!(told.counts()[0], 1, "what is there already is not made ready again");
        exports.disconnected(1);
        exports.finish();
        assert_eq!(told.counts()[3], 1);
    }
}
