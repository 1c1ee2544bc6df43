//! The functions of one open file.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use rusqlite::ffi;

use super::{SharedDisk, Slot, locked};
use crate::disk::{DiskError, Handle, Process};
use crate::file::Region;
use crate::locks::Level;

/// What `SQLite` allocates for each file: its own part first, as it asks, then ours.
#[repr(C)]
pub(super) struct SimulatedFile {
    base: ffi::sqlite3_file,
    open: MaybeUninit<OpenFile>,
}

pub(super) struct OpenFile {
    pub(super) slot: &'static Slot,
    pub(super) disk: SharedDisk,
    pub(super) process: Process,
    pub(super) handle: Handle,
    /// Every region that `SQLite` has a pointer into, kept alive until it unmaps them, whatever becomes of the process.
    pub(super) regions: Vec<Region>,
    /// The first sync of a new journal syncs the directory, too.
    pub(super) sync_directory: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // 2: shared memory, but no memory-mapped reading, which would pass the disk by.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl SimulatedFile {
    /// # Safety
    ///
    /// There is room for a `SimulatedFile`, aligned, at `file`, and nothing of ours in it.
    pub(super) unsafe fn put(file: *mut ffi::sqlite3_file, open: OpenFile) {
        let whole = Self {
            base: ffi::sqlite3_file {
                pMethods: &raw const METHODS,
            },
            open: MaybeUninit::new(open),
        };
        // SAFETY: the caller's promise.
        unsafe { file.cast::<Self>().write(whole) };
    }
}

/// # Safety
///
/// `file` was filled by [`SimulatedFile::put`] and not closed. `SQLite` calls one file from one thread at a time, and
/// nothing here calls `SQLite`, so the reference is the only one.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut OpenFile {
    // SAFETY: the caller's promise.
    unsafe { (*file.cast::<SimulatedFile>()).open.assume_init_mut() }
}

/// What `SQLite` is told: of an error the code of the call, unless it is only a lock of someone else's.
fn code(result: Result<(), DiskError>, failed: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(DiskError::Busy) => ffi::SQLITE_BUSY,
        Err(_) => failed,
    }
}

/// An offset or a length; `SQLite` has no negative ones.
fn unsigned<T: TryInto<U>, U: Default>(number: T) -> U {
    number.try_into().unwrap_or_default()
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open file and does not touch it again.
    let open = unsafe {
        (*file).pMethods = std::ptr::null();
        (*file.cast::<SimulatedFile>()).open.assume_init_read()
    };
    locked(&open.disk).close(open.handle);
    open.slot.open_files.fetch_sub(1, Ordering::AcqRel);
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let wanted: usize = unsigned(length);
    // SAFETY: SQLite passes an open file and room for this many bytes, which may be uninitialized: zeros first, which
    // is also what it asks for beyond the end of the file.
    let (open, into) = unsafe {
        std::ptr::write_bytes(into.cast::<u8>(), 0, wanted);
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), wanted);
        (opened(file), into)
    };
    match locked(&open.disk).read(open.handle, unsigned(offset), into) {
        Ok(got) if got == wanted => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes an open file and this many bytes.
    let (open, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), unsigned(length));
        (opened(file), bytes)
    };
    match locked(&open.disk).write(open.handle, unsigned(offset), bytes) {
        Err(DiskError::Full) => ffi::SQLITE_FULL,
        result => code(result, ffi::SQLITE_IOERR_WRITE),
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let result = locked(&open.disk).truncate(open.handle, unsigned(length));
    code(result, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let mut disk = locked(&open.disk);
    let result = disk.sync(open.handle);
    if result.is_ok() && std::mem::take(&mut open.sync_directory) {
        // Its error is passed over, as SQLite does on Unix, where some systems cannot sync a directory. A machine that
        // stops here is found out by the next call.
        let _ = disk.sync_directory(open.process);
    }
    code(result, ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let Ok(length) = locked(&open.disk).length(open.handle) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite passes room for the answer.
    unsafe { *out = unsigned(length) };
    ffi::SQLITE_OK
}

fn level(number: c_int) -> Option<Level> {
    match number {
        ffi::SQLITE_LOCK_SHARED => Some(Level::Shared),
        ffi::SQLITE_LOCK_RESERVED => Some(Level::Reserved),
        ffi::SQLITE_LOCK_PENDING => Some(Level::Pending),
        ffi::SQLITE_LOCK_EXCLUSIVE => Some(Level::Exclusive),
        _ => None,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let Some(wanted) = level(wanted) else {
        return ffi::SQLITE_OK;
    };
    let result = locked(&open.disk).lock(open.handle, wanted);
    code(result, ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let result = locked(&open.disk).unlock(open.handle, level(to));
    code(result, ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let Ok(reserved) = locked(&open.disk).reserved(open.handle) else {
        return ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    };
    // SAFETY: SQLite passes room for the answer.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    // The only one whose answer SQLite cannot do without on Unix: a database that was deleted or replaced must not be
    // written to.
    if operation != ffi::SQLITE_FCNTL_HAS_MOVED {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    let moved = locked(&open.disk)
        .has_moved(open.handle)
        .unwrap_or_default();
    // SAFETY: the argument of this operation points to an int.
    unsafe { *argument.cast::<c_int>() = c_int::from(moved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// What `SQLite` takes for granted of every disk on Unix, and nothing more. Powersafe overwrite, because without it
/// `SQLite` pads each commit to whole sectors, which is not what the real journal's does; the disk keeps that promise.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes an open file and room for the answer, which is null when there is no memory.
    let open = unsafe {
        *out = std::ptr::null_mut();
        opened(file)
    };
    let words = unsigned::<_, usize>(size).div_ceil(8);
    match locked(&open.disk).map(open.handle, unsigned(region), words, make != 0) {
        Ok(Some(memory)) => {
            // SAFETY: as above. The words are atomics, so they may be written to through a shared pointer; they are
            // kept until SQLite unmaps or closes the file.
            unsafe { *out = memory.as_ptr().cast_mut().cast() };
            open.regions.push(memory);
            ffi::SQLITE_OK
        }
        Ok(None) => ffi::SQLITE_OK,
        Err(_) => ffi::SQLITE_IOERR_SHMMAP,
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let open = unsafe { opened(file) };
    // Eight slots at most, `first` and `count` together.
    let mask = ((1_u16 << count) - 1) << first;
    let mask = u8::try_from(mask).unwrap_or(u8::MAX);
    let mut disk = locked(&open.disk);
    let result = if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        disk.unlock_slots(open.handle, mask)
    } else {
        disk.lock_slots(open.handle, mask, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0)
    };
    code(result, ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite passes an open file, and has dropped its pointers into the memory.
    let open = unsafe { opened(file) };
    locked(&open.disk).unmap(open.handle);
    open.regions.clear();
    ffi::SQLITE_OK
}
