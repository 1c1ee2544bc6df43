//! The disk of one simulated machine, as the simulation sees it from outside. What processes do to it is in `calls`.

mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Random;
use crate::faults::{Failure, Faults, Kind};
use crate::file::File;
use crate::locks::{FileLocks, Slots};

/// A process of the simulated machine. None has the number of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(u64);

/// A file that a process has open. None has the number of an earlier one, so one that outlived its process finds
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(pub(crate) u64);

/// What a file is, whatever its name: Unix's inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Inode(u64);

/// Why a call on the disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// EIO, because a [`Verdict`](crate::Verdict) said so.
    #[error("input/output error")]
    Io,
    /// ENOSPC, because a [`Verdict`](crate::Verdict) said so.
    #[error("no space left on device")]
    Full,
    /// The machine stands still since a [`Verdict`](crate::Verdict) stopped it.
    #[error("the simulated machine has stopped")]
    Stopped,
    /// The process was killed, or the machine has lost power since.
    #[error("the simulated process is dead")]
    Dead,
    /// No file of this name.
    #[error("no such file")]
    NotFound,
    /// A file of this name is there already.
    #[error("file exists")]
    Exists,
    /// Another handle has locked it.
    #[error("locked by another handle")]
    Busy,
}

/// What [`Disk::open`] does about a name that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It must be there.
    Existing,
    /// It is made if it is not there.
    Create,
    /// It must not be there.
    CreateNew,
}

/// One operation as it was done; see [`Disk::log_operations`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Operation`")]
pub struct Done {
    pub number: u64,
    pub process: Process,
    pub kind: Kind,
    pub file: Arc<str>,
    pub offset: u64,
    pub length: u64,
    /// What the process was told.
    pub outcome: Result<(), DiskError>,
}

/// Where the simulated clock starts: 2026-01-01, in microseconds since 1970.
const START: i64 = 1_767_225_600_000_000;

#[derive(Debug, Clone, Copy)]
struct Open {
    process: Process,
    inode: Inode,
}

/// A change of the directory that is not durable.
#[derive(Debug, Clone)]
enum Entry {
    Made(Arc<str>, Inode),
    Gone(Arc<str>),
}

/// A machine's files in one directory, in memory; names are opaque, a slash in one means nothing.
///
/// What a crash may take:
///
/// - A write or truncation is durable when its file is synced.
/// - A name that was made or removed is durable when the directory is synced, as POSIX has it. Syncing the file is not
///   enough. (Common Linux file systems are kinder.)
/// - What is not durable survives a power loss or does not, each change for itself, and a long write may be torn
///   between sectors of 512 bytes. What is durable survives.
/// - A kill takes locks and handles, nothing else.
///
/// Not modelled: reads that fail, durable content that rots, links, renames, directories, permissions. Shared memory is
/// no file here: it never fills the disk, and it is gone with the last process that had it.
///
/// The same calls on a disk of the same seed do the same. There is no clock but [`Disk::now`], which moves when told.
pub struct Disk {
    files: BTreeMap<Inode, File>,
    /// The directory as processes see it, as it is durable, and what lies between.
    names: BTreeMap<Arc<str>, Inode>,
    durable_names: BTreeMap<Arc<str>, Inode>,
    entries: Vec<Entry>,
    handles: BTreeMap<Handle, Open>,
    processes: BTreeSet<Process>,
    /// The next number for a process, handle or inode.
    next: u64,
    operations: u64,
    stopped: bool,
    faults: Option<Faults>,
    sync_is_a_lie: bool,
    log: Option<Vec<Done>>,
    randomness: Random,
    now: i64,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("names", &self.names.keys())
            .field("operations", &self.operations)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty one. The seed is of the random numbers that processes get from their machine.
    pub fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            entries: Vec::new(),
            handles: BTreeMap::new(),
            processes: BTreeSet::new(),
            next: 0,
            operations: 0,
            stopped: false,
            faults: None,
            sync_is_a_lie: false,
            log: None,
            randomness: Random::new(seed),
            now: START,
        }
    }

    /// A machine of its own with the same files, durable or not so yet, and the same time; no process, no faults, and
    /// operations counted from 0. It shares the content until one of the two writes, so it costs next to nothing.
    #[must_use]
    pub fn image(&self, seed: u64) -> Self {
        let mut image = Self {
            files: self.files.iter().map(|(i, f)| (*i, f.image())).collect(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            entries: self.entries.clone(),
            next: self.next,
            now: self.now,
            ..Self::new(seed)
        };
        image.collect();
        image
    }

    /// Asks this policy about every operation from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = Some(faults);
    }

    /// Lets every operation proceed again.
    pub fn clear_faults(&mut self) {
        self.faults = None;
    }

    /// From now on syncs report success and do nothing, as some drives do: a defect for a simulation to find.
    pub fn set_sync_is_a_lie(&mut self, lie: bool) {
        self.sync_is_a_lie = lie;
    }

    /// How many operations were asked for so far, those that failed included.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Keeps a log of all operations from now on.
    pub fn log_operations(&mut self) {
        self.log = Some(Vec::new());
    }

    /// The log; empty if none was asked for.
    pub fn log(&self) -> &[Done] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Whether a [`Verdict`](crate::Verdict) stopped the machine: no call succeeds until [`Disk::lose_power`] or
    /// [`Disk::kill`], whichever the simulation means by it.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The clock, in microseconds since 1970.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Lets time pass.
    pub fn wait(&mut self, microseconds: i64) {
        self.now += microseconds;
    }

    /// Starts a process.
    pub fn start_process(&mut self) -> Process {
        let process = Process(self.number());
        self.processes.insert(process);
        process
    }

    /// Ends a process where it stands. Its locks and handles are gone; everything that it wrote is there. A machine
    /// that stood still goes on.
    pub fn kill(&mut self, process: Process) {
        self.stopped = false;
        self.processes.remove(&process);
        let handles: Vec<Handle> = self
            .handles
            .iter()
            .filter(|(_, open)| open.process == process)
            .map(|(handle, _)| *handle)
            .collect();
        for handle in handles {
            self.close(handle);
        }
    }

    /// Ends all processes at once and starts the machine with what the disk still has.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.stopped = false;
        self.processes.clear();
        self.handles.clear();
        // Of their own generators, so that what happens to one file does not hang on how much was written to another.
        let mut directory = random.fork();
        for file in self.files.values_mut() {
            file.lose_power(&mut random.fork());
            file.handles = 0;
            file.locks = FileLocks::default();
            file.slots = Slots::default();
            file.memory = Vec::new();
        }
        let odds = [0, 4, 8][usize::try_from(directory.below(3)).unwrap_or(0)];
        for entry in self.entries.drain(..) {
            if directory.odds(odds, 8) {
                apply(&mut self.durable_names, entry);
            }
        }
        self.names.clone_from(&self.durable_names);
        self.collect();
    }

    /// What processes would read in a file.
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        Some(self.files[self.names.get(name)?].content())
    }

    /// What would be left of a file if nothing un-synced survived; nothing if its name is not durable.
    pub fn durable_content(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files[self.durable_names.get(name)?].durable())
    }

    /// The names that processes see.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Frees files that have no name, could get none back, and that nobody has open.
    fn collect(&mut self) {
        let Self {
            files,
            names,
            durable_names,
            entries,
            ..
        } = self;
        files.retain(|inode, file| {
            file.handles > 0
                || names.values().any(|i| i == inode)
                || durable_names.values().any(|i| i == inode)
                || entries
                    .iter()
                    .any(|entry| matches!(entry, Entry::Made(_, i) if i == inode))
        });
    }
}

impl From<Failure> for DiskError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io => Self::Io,
            Failure::Full => Self::Full,
        }
    }
}

fn apply(names: &mut BTreeMap<Arc<str>, Inode>, entry: Entry) {
    match entry {
        Entry::Made(name, inode) => drop(names.insert(name, inode)),
        Entry::Gone(name) => drop(names.remove(&name)),
    }
}

#[cfg(test)]
mod tests;
