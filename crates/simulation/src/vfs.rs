//! `SQLite` on a simulated disk: a file system in `SQLite`'s sense (<https://sqlite.org/vfs.html>), the real library's
//! only door to the machine, made to open onto a [`Disk`].
//!
//! It answers as `SQLite`'s own file system for Unix does, down to which calls sync the directory and which errors of
//! it are passed over, so that what runs above is the code that runs in production, on the same paths.
//!
//! In the write-ahead log's mode `SQLite` also wants memory that its connections share. Each process maps the same
//! region, as the simulation is one process in truth. So a connection of a killed process could still write to it: drop
//! it before any other process goes on. After [`Disk::lose_power`] that cannot happen, the memory is not the same any
//! more.

// The one module with unsafe code: SQLite takes a file system as a table of C functions, and hands memory to them as
// raw pointers. Everything that decides anything is in safe code elsewhere; here are only conversions.
#![allow(unsafe_code)]

mod file;
mod system;

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

use crate::{Disk, DiskError, Opening, Process};

/// A disk that the simulation and its processes share. Locked for each call on it: whoever holds the lock while calling
/// `SQLite` waits for himself.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// One simulated process's way to its machine's disk. Two on one disk are two processes of one machine.
///
/// Open connections with [`rusqlite::Connection::open_with_flags_and_vfs`] and [`Vfs::name`], and close them before
/// this is dropped: afterwards nothing can be opened under the name until it is given to another `Vfs`.
#[derive(Debug)]
pub struct Vfs {
    slot: &'static Slot,
}

/// What `SQLite` holds a pointer to. It may hold it as long as a connection lives, and connections are nobody's that we
/// know. So slots are never freed or unregistered, only given to the next [`Vfs`]; there are as many as there ever were
/// at once.
struct Slot {
    name: CString,
    /// Written by `SQLite`, under its own lock, to chain file systems together; by us before that only.
    vfs: UnsafeCell<ffi::sqlite3_vfs>,
    mounted: Mutex<Option<Mounted>>,
    /// How many files are open through it.
    open_files: AtomicUsize,
}

#[derive(Clone)]
struct Mounted {
    disk: SharedDisk,
    process: Process,
}

// SAFETY: `vfs` is the only field that is neither Send nor Sync. Its contents are set before the slot is shared; later
// `pNext` alone changes, and SQLite does that under its mutex. The pointers in it are to the slot itself.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({:?})", self.name)
    }
}

/// Slots that no [`Vfs`] has.
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

/// How many slots there are.
static SLOTS: AtomicUsize = AtomicUsize::new(0);

impl Vfs {
    /// Starts a process on the disk and makes its file system known to `SQLite`.
    pub fn register(disk: &SharedDisk) -> Self {
        let free = locked(&FREE).pop();
        let slot = free.unwrap_or_else(Slot::new);
        let vfs = Self { slot };
        vfs.start(disk);
        vfs
    }

    /// What connections are opened with.
    pub fn name(&self) -> &str {
        // Made from a string of ours.
        self.slot.name.to_str().unwrap_or_default()
    }

    /// The process whose connections are opened now.
    pub fn process(&self) -> Process {
        self.mounted().process
    }

    /// Starts the next process, when the last one was killed or the machine lost power. Connections of the last one
    /// stay dead.
    pub fn restart(&self) -> Process {
        self.start(&self.mounted().disk)
    }

    /// Writes every byte of a database's log over itself and syncs it, as this process: what `Journal::open_through` asks for.
    pub fn renew_log_of(
        &self,
        database: &str,
    ) -> Box<dyn Fn() -> std::io::Result<()> + Send + Sync> {
        let Mounted { disk, process } = self.mounted();
        let log = format!("{database}-wal");
        Box::new(move || {
            let mut disk = locked(&disk);
            let file = match disk.open(process, Some(&log), Opening::Existing) {
                Err(DiskError::NotFound) => return Ok(()),
                opened => opened.map_err(std::io::Error::other)?,
            };
            let renewed = (|| {
                let length = usize::try_from(disk.length(file)?).unwrap_or(0);
                let mut bytes = vec![0; length];
                disk.read(file, 0, &mut bytes)?;
                disk.write(file, 0, &bytes)?;
                disk.sync(file)
            })();
            disk.close(file);
            renewed.map_err(std::io::Error::other)
        })
    }

    fn start(&self, disk: &SharedDisk) -> Process {
        let process = locked(disk).start_process();
        *locked(&self.slot.mounted) = Some(Mounted {
            disk: Arc::clone(disk),
            process,
        });
        process
    }

    fn mounted(&self) -> Mounted {
        // Emptied by the drop alone.
        locked(&self.slot.mounted).clone().expect("mounted")
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        *locked(&self.slot.mounted) = None;
        // A connection that is still open would find the next process's files through the slot; better to lose the
        // slot.
        if self.slot.open_files.load(Ordering::Acquire) == 0 {
            locked(&FREE).push(self.slot);
        }
    }
}

impl Slot {
    fn new() -> &'static Self {
        let number = SLOTS.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("keyroll-simulation-{number}")).unwrap_or_default();
        let slot: &'static Self = Box::leak(Box::new(Self {
            vfs: UnsafeCell::new(system::table()),
            name,
            mounted: Mutex::new(None),
            open_files: AtomicUsize::new(0),
        }));
        let vfs = slot.vfs.get();
        // SAFETY: nobody else knows the slot yet, and it lives forever, as SQLite asks of what is registered.
        let code = unsafe {
            (*vfs).zName = slot.name.as_ptr();
            (*vfs).pAppData = std::ptr::from_ref(slot).cast_mut().cast();
            ffi::sqlite3_vfs_register(vfs, 0)
        };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite cannot be initialized");
        slot
    }
}

/// Lets `SQLite`'s own random numbers, such as the salts in a write-ahead log, begin anew from a seed other than 0.
///
/// They are the whole process's and come from the operating system otherwise. Nothing that `SQLite` does hangs on them,
/// so a log of operations is the same without this; the bytes in the files are the same only with it, and only while no
/// other thread uses `SQLite`.
pub fn seed_sqlite(seed: u32) {
    // SAFETY: this operation takes an integer and a connection, which may be null.
    unsafe {
        ffi::sqlite3_initialize();
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_PRNG_SEED,
            seed,
            std::ptr::null_mut::<ffi::sqlite3>(),
        );
    }
}

/// A panic while a disk was locked is the simulation's own and ends it; what it left is of no consequence.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
